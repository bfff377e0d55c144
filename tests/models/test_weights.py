"""Weights are found or the reason is said; what does not fit is never loaded in part."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from models import weights
from models.fold import fold_batch_norms
from models.registry import find_source
from models.vit_names import timm_names
from models.weights import file_digest, hub_weights, read_state
from store_schema.errors import ModelError

Download = Callable[..., str]


def hub_that(monkeypatch: pytest.MonkeyPatch, download: Download, *, reachable: bool) -> None:
    """Stand in for the hub and for the network."""

    def answer(repo: str, filename: str, *, local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        return download(repo, filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    monkeypatch.setattr(weights, "_reachable", lambda endpoint: reachable)


def refuse(repo: str, filename: str) -> str:
    response = httpx2.Response(403, request=httpx2.Request("GET", "https://hub"))
    raise GatedRepoError("gated", response=response)


def never(repo: str, filename: str) -> str:
    raise AssertionError("the network was asked")


def test_without_network_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_that(monkeypatch, never, reachable=False)
    with pytest.raises(ModelError, match=r"can't be reached.*--random-weights"):
        find_source("timm:resnet18").weights()
    with pytest.raises(ModelError, match=r"accept its licence at .*MahmoodLab/UNI.*HF_TOKEN.*uni@"):
        find_source("uni").weights()
    with pytest.raises(ModelError, match=r"phikon@path") as caught:
        find_source("phikon").weights()
    assert "licence" not in str(caught.value)  # not gated


def test_gated_model_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_that(monkeypatch, refuse, reachable=True)
    with pytest.raises(
        ModelError, match=r"does not hand out paige-ai/Virchow2: accept its licence"
    ):
        find_source("virchow2").weights()


def test_the_second_file_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_bin(repo: str, filename: str) -> str:
        if filename.endswith(".safetensors"):
            raise EntryNotFoundError("no such file")
        return f"/cache/{repo}/{filename}"

    hub_that(monkeypatch, only_bin, reachable=True)
    found = hub_weights("a/b", ("model.safetensors", "pytorch_model.bin"), gated=False, advice="x")
    assert found == Path("/cache/a/b/pytorch_model.bin")


def test_open_clip_without_a_tag_names_some() -> None:
    with pytest.raises(ModelError, match=r"names no weights.*openai.*--random-weights"):
        find_source("open_clip:ViT-B-32").weights()


def test_conch_says_which_package_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"pip install git\+https.*CONCH"):
        find_source("conch").network(tmp_path / "any.bin")


def test_missing_checkpoint() -> None:
    with pytest.raises(ModelError, match="There is no checkpoint at"):
        find_source("timm:resnet18@/nowhere/x.safetensors").weights()


@pytest.mark.parametrize("headless", [False, True])
def test_timm_checkpoint_with_and_without_classifier(tmp_path: Path, headless: bool) -> None:
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=0 if headless else 7).eval()
    file = tmp_path / "own.safetensors"
    save_file(model.state_dict(), file)
    source = find_source(f"timm:test_resnet@{file}")
    assert source.label == "timm:test_resnet@own"
    loaded = source.network(source.weights()).eval()
    x = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        model.reset_classifier(0)  # type: ignore[operator]
        expected = fold_batch_norms(model)(x)
        torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("spoil", ["missing", "foreign"])
def test_half_fitting_checkpoint_is_refused(tmp_path: Path, spoil: str) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    if spoil == "missing":
        del state["layer1.0.conv1.weight"]
    else:
        state["layer9.weight"] = torch.zeros(3)
    file = tmp_path / "half.safetensors"
    save_file(state, file)
    with pytest.raises(ModelError, match="does not fit timm's test_resnet"):
        find_source(f"timm:test_resnet@{file}").network(file)


def test_open_clip_checkpoint(tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(4)
    clip = open_clip.create_model("ViT-S-32-alt").eval()
    file = tmp_path / "clip.safetensors"
    save_file(clip.state_dict(), file)
    source = find_source(f"open_clip:ViT-S-32-alt@{file}")
    tower = source.network(source.weights()).eval()
    x = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(tower(x), clip.encode_image(x), rtol=0, atol=0)
    assert source.card.dim == tower(x).shape[1]
    with pytest.raises(ModelError, match="open_clip can't build ViT-S-32"):
        find_source(f"open_clip:ViT-S-32@{file}").network(file)


def test_hub_model_from_a_file_is_loaded_strictly(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    file = tmp_path / "lunit.bin"
    torch.save(model.state_dict(), file)
    loaded = find_source(f"lunit-vits16@{file}").network(file).eval()
    x = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    with pytest.raises(ModelError, match="does not fit VisionTransformer"):
        find_source(f"lunit-vits8@{file}").network(file)


def test_ctranspath_stem_takes_the_authors_names(tmp_path: Path) -> None:
    # the authors' file is of an older timm: downsampling at the end of a stage, buffers kept
    network = find_source("ctranspath").network(None)
    old = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        old[".".join(parts)] = tensor.contiguous()
    old["layers.0.blocks.1.attn_mask"] = torch.zeros(1)
    file = tmp_path / "ctranspath.safetensors"
    save_file(old, file)
    loaded = find_source("ctranspath").network(file)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("dinov2", [False, True])
def test_transformers_names_become_timms(dinov2: bool) -> None:
    torch.manual_seed(6)
    vit = VisionTransformer(
        embed_dim=24, depth=2, num_heads=3, num_classes=0, init_values=0.1 if dinov2 else None
    )
    theirs = {"embeddings.mask_token": torch.zeros(1, 24)} if dinov2 else {}
    inner = (
        {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "norm1": "norm1", "norm2": "norm2"}
        if dinov2
        else {
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
        }
    )
    top = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    for name, tensor in vit.state_dict().items():
        if name in top:
            theirs[top[name]] = tensor
            continue
        _, block, *module, kind = name.split(".")
        layer, part = f"encoder.layer.{block}", ".".join(module)
        if part == "attn.qkv":
            for which, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                theirs[f"{layer}.attention.attention.{which}.{kind}"] = third
        elif part == "attn.proj":
            theirs[f"{layer}.attention.output.dense.{kind}"] = tensor
        elif part in {"ls1", "ls2"}:
            theirs[f"{layer}.layer_scale{part[-1]}.lambda1"] = tensor
        else:
            theirs[f"{layer}.{inner[part]}.{kind}"] = tensor
    ours = timm_names({f"vit.{name}": tensor for name, tensor in theirs.items()})
    assert ours.keys() == vit.state_dict().keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in vit.state_dict().items())


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps({"state": print}, protocol=2))
    with pytest.raises(ModelError, match="can't be read as weights alone"):
        read_state(file)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\0" * 40)
    with pytest.raises(ModelError, match="can't be read as weights alone"):
        read_state(damaged)
    foreign = tmp_path / "foreign.pt"
    torch.save({"epoch": 3}, foreign)
    with pytest.raises(ModelError, match="holds no state dict"):
        read_state(foreign)


def test_digest_follows_the_content(tmp_path: Path) -> None:
    file = tmp_path / "w"
    file.write_bytes(b"abc")
    assert file_digest(file) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    file.write_bytes(b"abcd")
    assert file_digest(file).startswith("sha256:88d4266f")
