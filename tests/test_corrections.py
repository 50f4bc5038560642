"""Corrections: regressions and odds are the right ones, the same on all machines, and pay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import RangeEncoder
from diffcodec.exact.cdf import MEAN_UNITS, SCALE_UNITS, CdfTable
from diffcodec.quantized import corrections
from diffcodec.quantized.corrections import (
    KINDS,
    LIMIT,
    UNITS,
    Corrections,
    Odds,
    PhaseErrors,
    Regression,
)
from diffcodec.quantized.model import scale_index
from diffcodec.quantized.schedule import PHASES, Step

TABLE = CdfTable.gaussian()
SIDE = 48


def one_deviation(octaves):
    """The index of the scale of Gaussians that are 2^octaves cells wide."""
    import torch

    return int(scale_index(torch.tensor(octaves * SCALE_UNITS)))


@pytest.fixture
def phase():
    """The errors of the second phase of luma, after a step whose errors are known."""
    before = np.zeros((9, SIDE + 2, SIDE + 2), np.int16)
    before[:, 1:-1, 1:-1] = np.random.default_rng(0).normal(0, UNITS, (9, SIDE, SIDE)).round()
    places = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[:, 1::2].flatten()
    bordered = (places // SIDE + 1) * (SIDE + 2) + places % SIDE + 1
    deviations = TABLE.deviations().astype(float)
    errors = np.zeros_like(before)
    return PhaseErrors({}, deviations, 1, bordered, errors, before), before, bordered


@pytest.mark.parametrize(("plane", "octaves"), [(3, 0), (0, 1), (5, -2)])
def test_what_foretells_errors_moves_the_means(phase, plane, octaves):
    learner, before, bordered = phase
    n = len(bordered)
    chosen = np.arange(3 * n, dtype=np.int32)
    scale = np.full((n, 3), one_deviation(octaves), np.int32)
    planes = np.full(3, plane, np.int32)
    # Half of what the same place of Cg had, of the same band, is in the errors.
    foretold = 0.5 * before[6:9].reshape(3, -1)[:, bordered].T / UNITS
    seen = foretold + np.random.default_rng(1).normal(0, 0.9, (n, 3))
    deviation = 2.0 ** (plane + octaves)  # in units of the coefficients
    for _ in range(8):  # the rest of what was corrected is learnt from, too
        mean = np.zeros((n, 3), np.int32)
        learner.correct(chosen, mean, scale)
        moved = mean * 2.0**plane / MEAN_UNITS / deviation
        learner.learn(chosen, scale, planes, ((seen - moved) * deviation).flatten())
    assert np.abs(moved - foretold).mean() < 0.2 * np.abs(foretold).mean()


def test_errors_that_nothing_foretells_move_next_to_nothing(phase):
    learner, _, bordered = phase
    n = len(bordered)
    chosen, scale = np.arange(3 * n, dtype=np.int32), np.full((n, 3), one_deviation(0), np.int32)
    noise = np.random.default_rng(2).normal(0, 8, 3 * n)
    learner.learn(chosen, scale, np.full(3, 3, np.int32), noise)
    mean = np.zeros((n, 3), np.int32)
    learner.correct(chosen, mean, scale)
    assert 0 < np.abs(mean).mean() / MEAN_UNITS < 0.06


def test_nothing_is_moved_before_something_is_learnt(phase):
    learner, _, bordered = phase
    n = len(bordered)
    mean, scale = np.full((n, 3), 7, np.int32), np.full((n, 3), one_deviation(0), np.int32)
    learner.correct(np.arange(3 * n, dtype=np.int32), mean, scale)
    assert (mean == 7).all()


@given(st.integers(0, 1 << 30), st.integers(1, 9))
@settings(deadline=None, max_examples=20)
def test_sums_are_exact(seed, count):
    """So that no order of summation, and no library, tells one machine from another."""
    random = np.random.default_rng(seed)
    features = random.integers(-2 * LIMIT, 2 * LIMIT, (count, 500), endpoint=True, dtype=np.int16)
    left = random.integers(-LIMIT, LIMIT, 500, endpoint=True, dtype=np.int16)
    regression = Regression(count)
    regression.learn(features, left)
    rows, seen = [[int(f) for f in row] for row in features], [int(e) for e in left]
    for i, row in enumerate(rows):
        for j, other in enumerate(rows):
            total = sum(a * b * e * e for a, b, e in zip(row, other, seen, strict=True))
            assert int(regression.equations[i, j]) == total < 1 << 53
        assert int(regression.equations[i, -1]) == UNITS**2 * sum(
            a * e for a, e in zip(row, seen, strict=True)
        )


def test_the_largest_sums_stay_exact():
    assert corrections.LEARNT * (2 * LIMIT) ** 2 * LIMIT**2 < 1 << 53


@given(st.integers(0, 1 << 30), st.integers(1, 9))
@settings(deadline=None, max_examples=20)
def test_the_equations_are_solved(seed, count):
    random = np.random.default_rng(seed)
    features = random.normal(0, 3 * UNITS, (count, 300)).round()
    matrix, right = features * UNITS**2 @ features.T, features @ random.normal(0, 1e4, 300)
    weights = corrections._solve(np.column_stack([matrix, right]))
    matrix[np.diag_indices(count)] += corrections._PRIOR
    assert np.allclose(matrix @ weights, right, atol=1e-6 * np.abs(right).max())


def test_a_clone_learns_on_its_own():
    whole = Corrections(TABLE, 20)
    spent(lambda p: p**2, whole.odds(0, 5))
    copy = whole.clone()
    assert np.array_equal(copy.odds(0, 5).ratios(), whole.odds(0, 5).ratios())
    spent(lambda p: p**0.5, copy.odds(0, 5))
    assert not np.array_equal(copy.odds(0, 5).ratios(), whole.odds(0, 5).ratios())


def test_high_rungs_have_no_regressions():
    whole = Corrections(TABLE, 20)
    assert whole.begin(Step(corrections.HIGHEST_RUNG + 1, 1), 4, 4) is None
    first = whole.begin(Step(corrections.HIGHEST_RUNG, 1), 4, 4)
    assert first is not None
    counts = [
        len(first.of_phase(number, np.array([8]))._features(np.array([0], np.int32))[0])
        for number in range(len(PHASES))
    ]
    assert counts == [0, 2, 1, 3, 2, 4]


def decisions(seed, n, share=None):
    """Probabilities in 2^-16, and bits; the share of ones, if it is not what was foretold."""
    random = np.random.default_rng(seed)
    given = random.integers(1, 1 << 16, n)
    p = given / (1 << 16)
    bits = (random.random(n) < (p if share is None else share(p))).astype(np.int32)
    return given, bits


def spent(share, odds):
    """Bits of many decisions with these odds."""
    encoder = RangeEncoder()
    for seed in range(20):
        odds.code(encoder, seed % KINDS, *decisions(seed, 3000, share))
    return encoder.bits_used


def test_wrong_odds_are_mended_and_right_ones_kept():
    doubled = lambda p: 2 * p / (1 + p)  # noqa: E731 - twice the odds
    p = np.concatenate([decisions(seed, 3000)[0] for seed in range(20)]) / (1 << 16)
    q = doubled(p)
    entropy = -(q * np.log2(q) + (1 - q) * np.log2(1 - q)).sum()
    loss = spent(doubled, Odds(1 << 30)) - entropy
    assert spent(doubled, Odds(20)) - entropy < 0.5 * loss
    assert spent(None, Odds(20)) - spent(None, Odds(1 << 30)) < 0.01 * len(p)


def test_a_prior_that_yields_is_soon_forgotten_where_counts_cannot_be_chance():
    rare = np.full(3000, 20)  # in 2^-16: nearly never, but here every tenth
    bits = (np.arange(3000) % 10 == 0).astype(np.int32)
    lengths = []
    for yields in (False, True):
        encoder, odds = RangeEncoder(), Odds(100, yields=yields)
        for _ in range(4):
            odds.code(encoder, 0, rare, bits)
        lengths.append(encoder.bits_used)
    entropy = -4 * 3000 * (0.1 * np.log2(0.1) + 0.9 * np.log2(0.9))
    first = 3000 * (0.1 * np.log2((1 << 16) / 20))  # of these nothing was known
    assert lengths[1] < first + 1.1 * entropy < lengths[0]


def test_a_prior_that_yields_does_not_by_chance():
    right, firm = Odds(100, yields=True), Odds(100)
    spent(None, right)
    spent(None, firm)
    assert np.array_equal(right.ratios(), firm.ratios())


@given(st.integers(0, 1 << 30), st.floats(0.3, 3))
@settings(deadline=None, max_examples=20)
def test_what_is_left_of_a_prior_lies_between_none_and_all(seed, power):
    yielding, firm = Odds(100, yields=True), Odds(100)
    for odds in (yielding, firm):
        odds.code(RangeEncoder(), 0, *decisions(seed, 3000, lambda p: p**power))
    away = [np.abs(np.log(odds.ratios())) for odds in (firm, yielding)]
    assert (away[0] <= away[1] + 1e-12).all()
    assert np.isfinite(away[1]).all()
