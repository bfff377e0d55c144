"""``--config`` in the reference's nested form: one YAML file for all stages, as options of the command at hand.

Each key is an option of some of the commands, or has no meaning here and says why. A file may mix these keys with plain
option names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from jobs.options import config_option_by
from jobs.progress import say

_PROTOTYPES, _TRAIN, _SEGMENT, _EVALUATE = "prototypes", "train", "segment", "evaluate"


@dataclass(frozen=True)
class _Key:
    """What a key of the reference comes to.

    Attributes
    ----------
    options
        Command → its option, with underscores.
    useless
        Why it has no meaning here; empty where it has.
    only
        The one value that can be had, compared without case; None takes any.
    convert
        Makes the option's value of the key's.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    useless: str = ""
    only: str | None = None
    convert: Callable[[Any], Any] = lambda value: value


def _joined(value: Any) -> Any:
    return ",".join(str(part) for part in value) if isinstance(value, list) else value


def _everywhere(option: str, *more: str) -> _Key:
    return _Key(dict.fromkeys((_PROTOTYPES, _TRAIN, *more), option))


def _no(why: str) -> _Key:
    return _Key(useless=why)


_STORE: Final = "the store says where slides are (`slidestream index`)"
_IN_STORE: Final = "features and prototypes are in the store (--store, --name)"
_FROM_BANK: Final = "it follows from the bank"
_FROM_GRID: Final = "it is that of the grid"

# in whatever section they stand: the reference names these without one
_ANYWHERE: Final[Mapping[str, _Key]] = {
    "split_csv": _everywhere("splits", _EVALUATE),
    "labels_csv": _everywhere("labels", _EVALUATE),
    "class_order": _Key({_PROTOTYPES: "class_order", _TRAIN: "class_order"}, convert=_joined),
    "k_list": _Key({_PROTOTYPES: "k"}, convert=_joined),
    "num_per_class": _Key({_PROTOTYPES: "slides_per_class"}),
    "samples_per_wsi": _Key({_PROTOTYPES: "tiles_per_slide"}),
    "coordinates_dir": _Key({_PROTOTYPES: "coordinates"}),
    "gt_dir": _Key({_TRAIN: "truth", _EVALUATE: "truth"}),
    "gt_mask_dir": _Key({_TRAIN: "truth", _EVALUATE: "truth"}),
    "mask_dir": _Key({_TRAIN: "truth", _EVALUATE: "truth"}),
    "backbone": _Key({_TRAIN: "backbone"}),
    "seed": _everywhere("seed"),
    "wsi_dir": _no(_STORE),
    "input_dir": _no(_STORE),
    "output_dir": _Key({_SEGMENT: "out"}),
    "work_dir": _Key({_TRAIN: "run_dir"}),
    "weights": _Key({_SEGMENT: "run"}),
    "gpu": _no("--device says where to compute"),
    "num_classes": _no(_FROM_BANK),
    "cumsum_k": _no(_FROM_BANK),
    "patch_size": _no(_FROM_GRID),
    "tile_size": _no(_FROM_GRID),
    "tile_level": _no(_FROM_GRID),
    "feature_save_dir": _no(_IN_STORE),
    "medclip_features_pkl": _no(_IN_STORE),
    "label_feature_pkl": _no(_IN_STORE),
    "save_dir": _no(_IN_STORE),
    "save_samples": _no("training draws a picture every --plot-every rounds"),
}

_BY_PATH: Final[Mapping[str, _Key]] = {
    "training.epochs": _Key({_TRAIN: "epochs"}),
    "training.batch_size": _Key({_TRAIN: "batch_size"}),
    "training.optimizer.name": _Key(only="adamw"),
    "training.optimizer.lr": _Key({_TRAIN: "lr"}),
    "training.optimizer.weight_decay": _Key({_TRAIN: "weight_decay"}),
    "training.scheduler.type": _Key(only="cosine"),
    "training.scheduler.warmup_epochs": _Key({_TRAIN: "warmup_epochs"}),
    "training.loss_weights.scale_weights": _Key({_TRAIN: "scale_weights"}),
    "training.loss_weights.contrastive": _Key({_TRAIN: "contrastive"}),
    "training.loss_weights.cam_smooth": _Key({_TRAIN: "cam_smooth"}),
    "training.loss_weights.cam_sparsity": _Key({_TRAIN: "cam_sparsity"}),
    "training.validation_interval": _Key({_TRAIN: "validation_interval"}),
    "training.checkpoint_interval": _no("after every round there is a checkpoint"),
    "inference.batch_size": _Key({_SEGMENT: "batch_size"}),
    "inference.use_crf": _Key({_SEGMENT: "crf"}),
    "inference.use_tta": _Key({_SEGMENT: "tta"}),
    "inference.overlap_ratio": _Key({_SEGMENT: "overlap"}),
    "inference.post_processing.morphological_op": _Key({_SEGMENT: "post"}),
    "inference.post_processing.kernel_size": _Key({_SEGMENT: "kernel"}),
    "inference.post_processing.min_component_size": _Key({_SEGMENT: "min_component"}),
    "inference.post_processing.edge_refinement": _Key({_SEGMENT: "edge_refinement"}),
}


def options_of_reference(
    file: Path, loaded: dict[Any, Any], command: click.Command
) -> dict[Any, Any]:
    """Turn what a file says into options of a command; says which keys have no meaning.

    Parameters
    ----------
    file
        For sentences.
    loaded
        What it says: options of the command, and keys of the reference.
    command
        One of ``pbip``; keys of the others are passed over.

    Raises
    ------
    click.BadParameter
        Keys that are unknown (all of them are named), or a value that can't be had.
    """
    own = {
        o.lstrip("-").replace("-", "_") for p in command.params for o in p.opts + p.secondary_opts
    }
    options: dict[Any, Any] = {}
    unknown, useless = [], []
    for path, value in _leaves(loaded):
        leaf = path.rpartition(".")[2]
        key = _BY_PATH.get(path) or _ANYWHERE.get(leaf)
        name = path.replace("-", "_")
        is_plain = key is None or (name in own and str(command.name) not in key.options)
        if "." not in path and is_plain:
            options[path] = value  # an option, or a word that the error for options is about
        elif key is None:
            unknown.append(path)
        elif key.useless:
            useless.append(f"{path} ({key.useless})")
        elif key.only is not None and str(value).lower() != key.only:
            raise click.BadParameter(f"{file}: {path} can be {key.only} alone, and is {value!r}")
        elif str(command.name) in key.options and value is not None:
            options[key.options[str(command.name)]] = key.convert(value)
    if unknown:
        raise click.BadParameter(
            f"{file}: there is no meaning for {', '.join(unknown)}: leave these keys out, or look for their spelling"
        )
    if useless:
        say(f"note: {file.name}: without meaning here: {'; '.join(useless)}")
    return options


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


reference_config_option = config_option_by(
    options_of_reference,
    "YAML file with any of these options (long names), or in the nested form of the PBIP reference",
)
