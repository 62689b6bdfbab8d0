"""Statistics of draws that should be normal at a known scale; each is two-sided."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def scale_p_value(draws: NDArray[np.floating], scale: float) -> float:
    """Of the standard deviation: the sum of squares of n draws is chi-square with n degrees.

    The relative standard error of the scale is (2 n)^(-1/2).
    """
    statistic = float(np.sum(np.square(draws / scale)))
    tails = stats.chi2.sf(statistic, draws.size), stats.chi2.cdf(statistic, draws.size)
    return 2 * float(min(tails))


def tail_p_value(draws: NDArray[np.floating], scale: float, beyond: float) -> float:
    """Of the number of draws further than `beyond` standard deviations from zero."""
    count = int(np.sum(np.abs(draws) > beyond * scale))
    return float(stats.binomtest(count, draws.size, 2 * stats.norm.sf(beyond)).pvalue)


def independence_p_value(samples: NDArray[np.floating]) -> float:
    """Of all pairwise correlations of the columns together; shape (samples, columns).

    n times the sum of the squared correlations is about chi-square with a degree per pair. A
    correlation rho of every pair adds n rho^2 per pair.
    """
    count, columns = samples.shape
    upper = np.corrcoef(samples, rowvar=False)[np.triu_indices(columns, 1)]
    statistic = count * float(np.sum(upper**2))
    tails = stats.chi2.sf(statistic, len(upper)), stats.chi2.cdf(statistic, len(upper))
    return 2 * float(min(tails))


def largest_correlation_p_value(samples: NDArray[np.floating]) -> float:
    """Of the largest pairwise correlation of the columns, corrected for the number of pairs."""
    count, columns = samples.shape
    upper = np.abs(np.corrcoef(samples, rowvar=False)[np.triu_indices(columns, 1)])
    largest = min(float(upper.max()), 1 - 1e-15)
    one = 2 * float(stats.norm.sf(np.arctanh(largest) * np.sqrt(count - 3)))
    return min(1.0, one * len(upper))
