"""Checkpoints of the hub, models over several devices, quantised and compiled ones: they work, or say why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

from benchmarks.shapes import REAL
from eraser_lib import Eraser, HookSite, every_layer, find_decoder, run_capture
from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded, base, hub, load_model
from eraser_lib.families.weights import check_read
from eraser_lib.gate import Gate
from eraser_lib.study.paths import root
from eraser_lib.train.models import save_model
from tests.families.conftest import make


@pytest.fixture
def saved(loaded: Loaded, tmp_path: Path) -> Path:
    save_model(loaded, tmp_path / "model", half=False)
    return tmp_path / "model"


def pushing(model: Any, *, opened: bool = True) -> Eraser:
    """Two steered blocks and a gate behind them that opens for everybody or nobody."""
    size = find_decoder(model).hidden_size
    generator = torch.Generator().manual_seed(0)
    directions = {HookSite(block): torch.randn(1, size, generator=generator) for block in (0, 1)}
    gate = Gate(torch.randn(1, size, generator=generator), torch.zeros(1))
    return Eraser(
        directions=directions, gates={HookSite(3): gate.with_threshold(float("-inf") if opened else float("inf"))}
    )


def half_on_disk(model: Any) -> dict[str, str]:
    """A device map with every other block on disk and all else on the CPU."""
    layers = find_decoder(model).layers
    path = next(name for name, module in model.named_modules() if module is layers)
    places = {f"{path}.{block}": "disk" if block % 2 else "cpu" for block in range(len(layers))}
    ancestors = {path[:end] for end in range(len(path) + 1)}
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if name in ancestors and module is not layers:
            waiting += [(f"{name}.{child}".lstrip("."), part) for child, part in module.named_children()]
        elif module is not layers:
            places[name] = "cpu"
    return places


def test_without_a_network_one_error_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr(base.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(FileNotFoundError) as caught:
        load_model("llava-hf/llava-1.5-7b-hf")
    text = str(caught.value)
    revision = hub.PUBLISHED["llava-hf/llava-1.5-7b-hf"].revision
    assert f"hf download llava-hf/llava-1.5-7b-hf --revision {revision} --local-dir llava-1.5-7b-hf" in text
    assert "about 14.1 GB" in text and "We couldn't connect to the hub" in text and "more lines" not in text
    with pytest.raises(FileNotFoundError, match=r"about 146\.8 GB"):
        load_model("Qwen/Qwen2.5-VL-72B-Instruct")
    with pytest.raises(FileNotFoundError, match="hf download someone/else --local-dir else"):
        load_model("someone/else")


def test_the_published_checkpoints_are_pinned_and_their_sizes_are_those_of_their_weights() -> None:
    for name, published in hub.PUBLISHED.items():
        assert len(published.revision) == 40 and int(published.revision, 16)
        assert published.gigabytes == pytest.approx(2 * REAL[name].billions, rel=5e-3)
    assert pytest.approx({name: 2 * shape.billions for name, shape in REAL.items()}, rel=5e-3) == hub.GIGABYTES
    assert hub.revision_of("llava-hf/llava-1.5-7b-hf", "mine") == "mine"
    assert hub.revision_of("someone/else", None) is None


def test_weights_that_no_file_holds_are_told(loaded: Loaded, saved: Path) -> None:
    """They would be random: transformers says so in a table, and goes on."""
    check_read(load_model(saved).model, saved)
    (saved / "model.safetensors").unlink()
    loaded.model.save_pretrained(saved, max_shard_size="100KB")
    check_read(load_model(saved).model, saved)
    config = json.loads((saved / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    for key in ("layer_types", "max_window_layers"):  # of Qwen2.5-VL
        config["text_config"].pop(key, None)
    (saved / "config.json").write_text(json.dumps(config))
    deeper = load_model(saved).model
    with pytest.raises(ValueError, match=r"weights that its config\.json describes: \d+ of \d+ are in no file"):
        check_read(deeper, saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name"), [("llava", "llava-hf/llava-1.5-7b-hf"), ("qwen", "Qwen/Qwen2.5-VL-7B-Instruct")]
)
def test_configuration_weights_and_processor_are_read_at_the_fixed_commit(
    family: str, name: str, tmp_path: Path
) -> None:
    """From a cache that holds this commit and no branch, without a network: who asks for the newest gets nothing."""
    snapshot = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / hub.PUBLISHED[name].revision
    small = make(family)
    small.model.save_pretrained(snapshot)
    small.processor.save_pretrained(snapshot)
    code = f"from eraser_lib.families import load_model; print(load_model({name!r}).family)"
    around = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root(), env=around, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(family)


def test_attention_is_sdpa(loaded: Loaded, saved: Path) -> None:
    again = load_model(saved)
    assert {again.model.config._attn_implementation, again.model.config.get_text_config()._attn_implementation} == {
        "sdpa"
    }


def test_an_interrupted_download_is_named(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights \(\*\.safetensors\): the download is not complete"):
        load_model(saved)
    (saved / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_model(saved)


def test_a_download_that_lacks_a_shard_names_it(loaded: Loaded, saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    loaded.model.save_pretrained(saved, max_shard_size="100KB")
    shards = sorted(saved.glob("model-*.safetensors"))
    assert len(shards) > 2 and load_model(saved).generate([Prompt("Hello?")], max_new_tokens=1)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks 1 of {len(shards)} files of weights, {shards[1].name}: the"):
        load_model(saved)
    shards[0].rename(saved / "model.safetensors")
    hub.check_weights(saved)  # an index beside one file that holds all is a leftover


@pytest.mark.parametrize("name", ["llava-1.5-7b-hf", "/no/such/folder"])
def test_a_name_that_is_neither_folder_nor_on_the_hub_is_explained(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at {name}. Name a folder, or OWNER/NAME of a model"):
        load_model(name)


def test_a_model_over_two_devices_is_read_and_steered_alike(
    loaded: Loaded, prompts: list[Prompt], saved: Path, tmp_path: Path
) -> None:
    """Half of the blocks lie on disk and come to the device of the pass; between passes their weights are nowhere."""
    spread = load_model(saved)
    places = half_on_disk(spread.model)
    dispatch_model(spread.model, places, main_device="cpu", offload_dir=str(tmp_path / "offload"))
    assert next(find_decoder(spread.model).layers[1].parameters()).device.type == "meta"
    inputs = loaded.encode(prompts)
    sites = every_layer(loaded.model)
    wanted, found = (run_capture(model, inputs, sites) for model in (loaded.model, spread.model))
    assert all(torch.equal(wanted[site], found[site]) for site in sites)
    for opened in (True, False):
        answers = []
        for each in (loaded, spread):
            with pushing(each.model, opened=opened).attach(each.model) as handle:
                answers.append(each.generate(prompts, max_new_tokens=4))
                assert handle.opened is not None and bool(handle.opened.all()) is opened
        assert answers[0] == answers[1]


@pytest.mark.parametrize("room", [2.0, 0.5])
def test_a_model_that_is_spread_answers_alike(
    loaded: Loaded, prompts: list[Prompt], saved: Path, monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    """`device_map="auto"` by the memory there is, in sizes of the model: without a GPU all of it in memory, or the rest
    read from the checkpoint on disk at each pass."""
    size = sum(parameter.nbytes for parameter in loaded.model.parameters())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=room * size, total=room * size))
    mine = load_model(saved, spread=True)
    monkeypatch.undo()
    places = getattr(mine.model, "hf_device_map", {"": "cpu"})  # left out where all is in one place
    assert set(places.values()) == ({"cpu"} if room > 1 else {"cpu", "disk"})
    inputs = loaded.encode(prompts)
    for opened in (True, False):
        logits, answers = [], []
        for each in (loaded, mine):
            with torch.no_grad(), pushing(each.model, opened=opened).attach(each.model) as handle:
                logits.append(each.model(**inputs).logits)
                answers.append(each.generate(prompts, max_new_tokens=4))
                assert handle.opened is not None and bool(handle.opened.all()) is opened
        assert torch.equal(*logits) and answers[0] == answers[1]
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs).logits, logits[0]), "a closed gate changes nothing"
        assert torch.equal(mine.model(**inputs).logits, logits[0]), "and none is left behind"


def test_a_pass_over_a_dispatched_model_stops_where_nothing_more_is_needed(
    loaded: Loaded, prompts: list[Prompt], saved: Path, tmp_path: Path
) -> None:
    spread = load_model(saved)
    dispatch_model(spread.model, {"": "cpu"}, main_device="cpu", force_hooks=True)
    ran: list[int] = []
    for number, block in enumerate(find_decoder(spread.model).layers):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    run_capture(spread.model, loaded.encode(prompts), [HookSite(1)])
    assert max(ran) == 1


def test_a_compiled_model_is_refused_and_compiled_blocks_work(
    loaded: Loaded, prompts: list[Prompt], saved: Path
) -> None:
    mine = load_model(saved)
    eraser = pushing(mine.model)
    with pytest.raises(ValueError, match="skipped silently"), eraser.attach(torch.compile(mine.model, backend="eager")):
        pass
    inputs = mine.encode(prompts)
    with torch.no_grad(), eraser.attach(mine.model):
        wanted = mine.model(**inputs).logits
    for block in find_decoder(mine.model).layers:
        block.forward = torch.compile(block.forward, backend="eager")
    with torch.no_grad(), eraser.attach(mine.model):
        assert torch.allclose(mine.model(**inputs).logits, wanted, atol=1e-5)


def test_quantised_weights_need_their_package_and_a_known_width(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="bits is 3; weights can be loaded with 4 or 8 bits"):
        load_model(saved, bits=3)
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install bitsandbytes"):
        load_model(saved, bits=4)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_is_steered(loaded: Loaded, prompts: list[Prompt], bits: int) -> None:
    pytest.importorskip("bitsandbytes", reason="not installed: pip install bitsandbytes")
    mine = load_model(root() / "checkpoints" / "tiny" / loaded.family / "vanilla", bits=bits)
    wanted = {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    assert type(find_decoder(mine.model).layers[0].mlp.down_proj).__name__ == wanted
    if bits == 4:
        config = base._quantised(4, torch.bfloat16)
        assert (config.bnb_4bit_compute_dtype, config.bnb_4bit_quant_type) == (torch.bfloat16, "nf4")
    inputs = mine.encode(prompts)
    with torch.no_grad():
        plain = mine.model(**inputs).logits
        for opened in (True, False):
            with pushing(mine.model, opened=opened).attach(mine.model):
                assert torch.equal(mine.model(**inputs).logits, plain) is not opened


def test_without_torchvision_qwen_gets_a_processor_of_its_own(
    qwen: Loaded, prompts: list[Prompt], tmp_path: Path
) -> None:
    """A published checkpoint has no `tiny.json`; its processor is read from its own files."""
    save_model(qwen, tmp_path / "model", half=False)
    (tmp_path / "model" / "tiny.json").unlink()
    qwen.processor.image_processor.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    one, two = qwen.encode(prompts), again.encode(prompts)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_llava_checkpoint_brings_its_processor(prompts: list[Prompt], tmp_path: Path) -> None:
    from tests.families.conftest import make

    llava = make("llava")
    save_model(llava, tmp_path / "model", half=False)
    (tmp_path / "model" / "tiny.json").unlink()
    llava.processor.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    one, two = llava.encode(prompts), again.encode(prompts)
    assert all(torch.equal(one[name], two[name]) for name in one)
