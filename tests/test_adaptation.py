"""Adaptation: the regression is the right one, the same on all machines, and pays."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import RangeEncoder
from diffcodec.exact.cdf import MEAN_UNITS, SCALE_UNITS, CdfTable
from diffcodec.quantized import adaptation, model
from diffcodec.quantized.adaptation import LIMIT, UNITS, PhaseErrors
from diffcodec.quantized.codec import walk
from diffcodec.quantized.refine import Conditional, in_sets
from diffcodec.quantized.state import State

TABLE = CdfTable.gaussian()


def conditional(count, plane=3, octaves=0):
    """Gaussians around the middle of their cells, 2^octaves cells wide."""
    index = model.scale_index(torch.full((count,), octaves * SCALE_UNITS, dtype=torch.int32))
    planes = torch.full((count,), plane, dtype=torch.int32)
    middle = mean = torch.zeros(count, dtype=torch.int32)
    return Conditional(TABLE, middle, planes, mean, index)


def first_band(count):
    """All coefficients of a phase, in one set: the other two bands have none."""
    return slice(0, count), slice(count, count), slice(count, count)


def phase(features):
    return PhaseErrors({}, 0, features, list(first_band(features.shape[1])))


def errors(seed, count, weights):
    """Features, and errors in deviations that they foretell with these weights, and noise."""
    random = np.random.default_rng(seed)
    features = random.normal(0, UNITS, (len(weights), count)).round().clip(-LIMIT, LIMIT)
    told = np.array(weights) @ features / UNITS
    return features.astype(np.int16), told, (told + random.normal(0, 0.9, count))


@pytest.mark.parametrize(("plane", "octaves"), [(3, 0), (0, 1), (5, -2)])
def test_what_foretells_errors_moves_the_means(plane, octaves):
    count, weights = 4000, (0.4, -0.2, 0)
    features, told, seen = errors(1, count, weights)
    learner, given, whole = phase(features), conditional(count, plane, octaves), first_band(count)
    deviation = 2.0 ** (plane + octaves)  # in units of the coefficients
    for _ in range(8):  # the rest of what was corrected is learnt from, too
        moved = learner.corrected(whole, given).mean.numpy() * 2.0**plane / MEAN_UNITS / deviation
        learner.learn(whole, given, ((seen - moved) * deviation).astype(np.float32))
    assert np.abs(moved - told).mean() < 0.1 * np.abs(told).mean()


def test_errors_that_nothing_foretells_move_next_to_nothing():
    features, _, seen = errors(2, 4000, (0, 0))
    learner, given = phase(features), conditional(4000)
    learner.learn(first_band(4000), given, (8 * seen).astype(np.float32))
    moved = learner.corrected(first_band(4000), given).mean.numpy() / MEAN_UNITS
    assert np.abs(moved).mean() < 0.03


def test_nothing_is_moved_before_something_is_learnt():
    features, _, _ = errors(3, 100, (0.5,))
    given = conditional(100)
    assert torch.equal(phase(features).corrected(first_band(100), given).mean, given.mean)


@given(st.integers(0, 1 << 30), st.integers(1, 9))
@settings(deadline=None, max_examples=20)
def test_sums_are_exact(seed, count):
    """So that no order of summation, and no library, tells one machine from another."""
    random = np.random.default_rng(seed)
    features = random.integers(-2 * LIMIT, 2 * LIMIT, (count, 500), endpoint=True, dtype=np.int16)
    learner = phase(features)
    learner.learn(first_band(500), conditional(500), random.normal(0, 20, 500).astype(np.float32))
    (regression,) = (r for r in learner._regressions.values() if r.equations.any())
    equations = regression.equations
    seen = [int(e) for e in learner.errors]
    rows = [[int(f) for f in row] for row in features]
    for i, row in enumerate(rows):
        for j, other in enumerate(rows):
            total = sum(a * b * e * e for a, b, e in zip(row, other, seen, strict=True))
            assert int(equations[i, j]) == total < 1 << 53
        assert int(equations[i, -1]) == UNITS**2 * sum(
            a * e for a, e in zip(row, seen, strict=True)
        )


def test_the_largest_weights_and_errors_stay_exact_in_float32():
    features = 9
    assert features * 2 * adaptation.WEIGHT_UNITS * 2 * LIMIT < 1 << 24


@given(st.integers(0, 1 << 30), st.integers(1, 9))
@settings(deadline=None, max_examples=20)
def test_the_equations_are_solved(seed, count):
    random = np.random.default_rng(seed)
    features = random.normal(0, 3 * UNITS, (count, 300)).round()
    matrix, right = features * UNITS**2 @ features.T, features @ random.normal(0, 1e4, 300)
    weights = adaptation._solve(np.column_stack([matrix, right]))
    matrix[np.diag_indices(count)] += adaptation._PRIOR
    assert np.allclose(matrix @ weights, right, atol=1e-6 * np.abs(right).max())


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 50), st.integers(50, 400))
def test_sets_cover_the_whole_and_grow(start, count, first, most):
    parts = list(in_sets(slice(start, start + count), first, most))
    assert [i for part in parts for i in range(part.start, part.stop)] == [
        *range(start, start + count)
    ]
    lengths = [part.stop - part.start for part in parts]
    assert lengths[:-1] == [min(first * 4**n, most) for n in range(len(lengths) - 1)]


@given(st.lists(st.integers(0, 300), min_size=3, max_size=3))
def test_the_sets_of_a_phase_have_a_part_of_each_band(lengths):
    ends = np.cumsum([0, *lengths])
    bands = [slice(*map(int, pair)) for pair in pairwise(ends)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "FIRST_SET", 7)
        patch.setattr(adaptation, "LARGEST_SET", 50)
        learner = PhaseErrors({}, 0, np.zeros((1, int(ends[-1])), np.int16), bands)
        parts = list(learner.sets())
    for band, of_band in zip(bands, zip(*parts, strict=True), strict=False):
        covered = [i for part in of_band for i in range(part.start, part.stop)]
        assert covered == [*range(band.start, band.stop)]


def spent(picture):
    encoder = RangeEncoder()
    for _ in walk(model.load(model.PHOTO), [State.of_image(picture)], encoder):
        pass
    return encoder.bits_used


def test_noise_that_the_colours_share_costs_less(monkeypatch):
    random = np.random.default_rng(4)
    noise = random.normal(0, 12, (96, 96))
    shares = np.array([1, 0.6, -0.5])
    samples = 128 + shares[:, None, None] * noise + random.normal(0, 1.5, (3, 96, 96))
    picture = torch.from_numpy(samples.round().clip(0, 255).astype(np.int32))
    corrected = spent(picture)
    monkeypatch.setattr(adaptation, "HIGHEST_RUNG", 0)
    assert corrected < 0.97 * spent(picture)
