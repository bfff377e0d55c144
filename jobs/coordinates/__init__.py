"""Coordinates of tiles in the files of slide2vec and hs2p: read, made into grids, written."""
