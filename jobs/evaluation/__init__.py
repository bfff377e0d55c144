"""Judging what models say: of slides against labels, of tiles against masks."""
