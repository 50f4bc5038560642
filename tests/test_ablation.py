"""The harness of ablations: variants differ in what they say, and costs are counted."""

from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from diffcodec.quantized import model
from diffcodec.training import ablation
from diffcodec.training.ablation import VARIANTS, Variant, multiply_adds


def test_multiplications_grow_with_the_blocks_by_what_a_block_has():
    shallow, deep = (
        multiply_adds(model.network(((blocks, 0), (1, 0), (1, 0)))) for blocks in (1, 3)
    )
    # Two 3x3 convolutions of 64 channels, a quarter of the positions, levels of 1/4 to 1/4^4 of
    # the pixels (the coarser ones are exact before the finish), one rung.
    levels = sum(4.0**-level for level in range(1, 5))
    assert deep - shallow == pytest.approx(2 * 2 * 9 * 64**2 / 4 * levels, rel=1e-3)


def test_the_table_has_a_line_for_each_variant(tmp_path, monkeypatch):
    for folder in ("pictures", "validation"):
        (tmp_path / folder).mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / folder / "0.png")
    once = partial(ablation.train, steps=1)
    monkeypatch.setattr(ablation, "train", lambda *args, minutes, **rest: once(*args, **rest))
    monkeypatch.setattr(Variant, "validate", lambda self, net, images: f"{len(images)} pictures")
    names = ["batches of 4", "half the blocks"]
    options = [text for name in names for text in ("--only", name)]
    folders = [str(tmp_path / "pictures"), str(tmp_path / "validation")]
    result = CliRunner().invoke(ablation.main, [*folders, *options])
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"| {name}" for name in names]
    assert all(row[1] == "1" and row[3] == "1 pictures |" for row in rows)
    assert int(rows[0][2]) > int(rows[1][2])


def test_variants_differ_from_the_baseline_in_one_thing():
    base = VARIANTS["as it is"]

    def choices(variant):
        depths = [(len(e.blocks), len(e.fine)) for e in variant.network().experts]
        return [variant.rate, depths, variant.draws, variant.interpolated]

    for name, variant in VARIANTS.items():
        pairs = zip(choices(base), choices(variant), strict=True)
        assert sum(one != other for one, other in pairs) == (name != "as it is")
