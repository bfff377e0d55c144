"""The reference's nested configuration as options of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from jobs.pbip.evaluate_command import evaluate
from jobs.pbip.prototypes_command import prototypes
from jobs.pbip.reference_yaml import options_of_reference
from jobs.pbip.segment_command import segment
from jobs.pbip.train_command import train
from jobs.pbip.uncertain_command import uncertain

# the blocks of the reference's document, and the names that its text gives to the rest of its configuration
TRAINING = """
training:
  epochs: 8
  batch_size: 10
  optimizer: {name: AdamW, lr: 0.001, weight_decay: 0.0005}
  scheduler: {type: cosine, warmup_epochs: 1}
  loss_weights: {scale_weights: [0.0, 0.1, 1.0, 1.0], contrastive: 0.1, cam_smooth: 0.1, cam_sparsity: 0.01}
  validation_interval: 100
  checkpoint_interval: 1000
"""
INFERENCE = """
inference:
  batch_size: 32
  use_crf: true
  use_tta: false
  overlap_ratio: 0.5
  post_processing: {morphological_op: closing, kernel_size: 3, min_component_size: 100, edge_refinement: true}
"""
DATA = """
dataset:
  split_csv: splits.csv
  labels_csv: labels.csv
  wsi_dir: wsi
  coordinates_dir: coordinates
  class_order: [benign, tumor]
  num_classes: 2
  patch_size: 224
features: {k_list: [3, 3], num_per_class: 5, samples_per_wsi: 1000, feature_save_dir: f, medclip_features_pkl: m.pkl,
  label_feature_pkl: l.pkl, save_dir: s}
model: {backbone: mit_b1}
"""
FILE = Path("reference.yaml")


def options(text: str, command: click.Command) -> dict[Any, Any]:
    return options_of_reference(FILE, yaml.safe_load(text), command)


def test_one_file_serves_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = TRAINING + INFERENCE + DATA
    assert options(text, train) == {
        "epochs": 8,
        "batch_size": 10,
        "lr": 0.001,
        "weight_decay": 0.0005,
        "warmup_epochs": 1,
        "scale_weights": [0.0, 0.1, 1.0, 1.0],
        "contrastive": 0.1,
        "cam_smooth": 0.1,
        "cam_sparsity": 0.01,
        "validation_interval": 100,
        "splits": "splits.csv",
        "labels": "labels.csv",
        "class_order": "benign,tumor",
        "backbone": "mit_b1",
    }
    said = capsys.readouterr().err
    for key in (
        "training.checkpoint_interval", "dataset.wsi_dir", "dataset.num_classes", "dataset.patch_size",
        "features.feature_save_dir", "features.medclip_features_pkl", "features.label_feature_pkl",
        "features.save_dir",
    ):  # fmt: skip
        assert f"{key} (" in said
    assert "epochs (" not in said
    assert options(text, prototypes) == {
        "splits": "splits.csv",
        "labels": "labels.csv",
        "class_order": "benign,tumor",
        "coordinates": "coordinates",
        "k": "3,3",
        "slides_per_class": 5,
        "tiles_per_slide": 1000,
    }
    assert options(text, segment) == {
        "batch_size": 32,
        "crf": True,
        "tta": False,
        "overlap": 0.5,
        "post": "closing",
        "kernel": 3,
        "min_component": 100,
        "edge_refinement": True,
    }
    assert options(text + "gt_dir: masks", evaluate) == {
        "splits": "splits.csv",
        "labels": "labels.csv",
        "truth": "masks",
    }
    assert options(text, uncertain) == {}


@pytest.mark.parametrize("command", [train, prototypes, segment, evaluate, uncertain])
def test_what_keys_come_to_are_options(command: click.Command) -> None:
    spelled = {o.lstrip("-").replace("-", "_") for p in command.params for o in p.opts}
    assert set(options(TRAINING + INFERENCE + DATA, command)) <= spelled
    (config,) = (param for param in command.params if "--config" in param.opts)
    assert isinstance(config, click.Option)
    assert "nested form of the PBIP reference" in str(config.help)


def test_the_defaults_of_training_are_the_reference_s() -> None:
    told = options(TRAINING, train)
    defaults = {param.name: param.default for param in train.params}
    told["scale_weights"] = tuple(told["scale_weights"])
    assert {name: defaults[name] for name in told} == told


def test_options_of_ours_may_stand_beside() -> None:
    found = options("store: s.zarr\nclass-order: a,b\nclass_order: [a, b]\nbonk: 1", train)
    assert found == {"store": "s.zarr", "class-order": "a,b", "class_order": "a,b", "bonk": 1}


def test_unknown_keys_are_all_named_and_other_values_refused() -> None:
    with pytest.raises(click.BadParameter, match=r"no meaning for training\.epoch, model\.depth: "):
        options("training: {epoch: 3, batch_size: 2}\nmodel: {depth: 9}", train)
    with pytest.raises(
        click.BadParameter, match=r"optimizer\.name can be adamw alone, and is 'sgd'"
    ):
        options("training: {optimizer: {name: sgd}}", train)
