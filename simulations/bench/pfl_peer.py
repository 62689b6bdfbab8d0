"""pfl-research against the engine, which runs in a callback of pfl's simulation loop.

Imported only in a separate process (`race.run_apart`): pfl sets global defaults of torch.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
from torch import Tensor

from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.simulations.bench import contestants
from feddp.simulations.bench.workload import User, make_workload


class Batches(Dataset):  # type: ignore[misc]
    """One user's minibatches, collated once, as pfl iterates over them."""

    def __init__(self, user: User, width: int | None):
        self._steps = [contestants.collate(step, "cpu", width) for step in user]
        super().__init__(raw_data=self._steps[0])

    def iter(self, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """The minibatches, which all contestants share, in order."""
        yield from self._steps


class Loss(torch.nn.Module):
    """The interface that pfl asks of a model."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a minibatch."""
        return contestants.mean_loss(self.model, inputs, targets)

    def metrics(self, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
        """No metrics: only training is timed."""
        return {}


class Averaging(FederatedAveraging):  # type: ignore[misc]
    """FedAvg that keeps the last aggregated update."""

    def process_aggregated_statistics(
        self, central_context: Any, aggregate_metrics: Any, model: Any, statistics: Any
    ) -> Any:
        """As the base class; `update` is the noised mean, by parameter."""
        outcome = super().process_aggregated_statistics(
            central_context, aggregate_metrics, model, statistics
        )
        self.update = {name: statistics[name].numpy().copy() for name in statistics}
        return outcome


class EveryRound(TrainingProcessCallback):  # type: ignore[misc]
    """Times pfl's rounds between calls, and the engine within each call."""

    def __init__(self, engine: Callable[[], object]):
        self.engine = engine
        self.pfl_seconds: list[float] = []
        self.engine_seconds: list[float] = []
        self._left = time.process_time()

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Any]:
        """One run of the engine after one round of pfl."""
        entered = time.process_time()
        self.pfl_seconds.append(entered - self._left)
        self.engine()
        self._left = time.process_time()
        self.engine_seconds.append(self._left - entered)
        return False, Metrics()


def compare(
    *, population: list[Any], shape: dict[str, Any], width: int | None, repeats: int
) -> dict[str, Any]:
    """CPU seconds per round of pfl and of the engine, in turn, after checking for equal work.

    Args:
      population: fields of `Population`; all its users are in every round.
      shape: fields of `Shape`.
      width: tokens to which every row is padded for pfl; None pads to the longest of a minibatch.
      repeats: measured rounds, after one for warm-up.

    Returns:
      "seconds" of "pfl" and "engine", and the "relative_error" between both mean updates, without
      noise.
    """
    torch.set_num_threads(1)
    base, layout, users = make_workload(population, shape)
    run = contestants.engine(base, layout, users)
    expected = contestants.mean_update(run(), len(users))
    found = simulate(base, layout, users, width=width, noise_multiplier=0.0, rounds=1)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    each = EveryRound(contestants.private(run, cohort_size=len(users), dimension=layout.dimension))
    simulate(
        base,
        layout,
        users,
        width=width,
        noise_multiplier=contestants.NOISE_MULTIPLIER,
        rounds=repeats + 1,
        callbacks=[each],
    )
    seconds = {"pfl": each.pfl_seconds[1:], "engine": each.engine_seconds[1:]}
    return {"seconds": seconds, "relative_error": float(error)}


def simulate(
    base: BaseModel,
    layout: AdapterLayout,
    users: list[User],
    *,
    width: int | None,
    noise_multiplier: float,
    rounds: int,
    callbacks: list[Any] | None = None,
) -> NDArray[np.float32]:
    """Runs pfl's simulation; the mean update of the last round, float32, shape (P,)."""
    model, trained = contestants.peft_model(base, layout)
    datasets = [Batches(user, width) for user in users]
    sampler = get_user_sampler("minimize_reuse", list(range(len(users))))
    training = FederatedDataset(datasets.__getitem__, sampler)
    gaussian = GaussianMechanism(contestants.CLIPPING_NORM, noise_multiplier)
    backend = SimulatedBackend(
        training, training, postprocessors=[CentrallyAppliedPrivacyMechanism(gaussian)]
    )
    algorithm = Averaging()
    algorithm.run(
        # The first round is evaluated whatever the frequency; it never counts.
        NNAlgorithmParams(rounds, rounds + 1, len(users), None),
        backend,
        PyTorchModel(Loss(model), torch.optim.SGD, torch.optim.SGD(list(trained.values()), lr=1.0)),
        NNTrainHyperParams(
            local_batch_size=1, local_num_epochs=1, local_learning_rate=contestants.LEARNING_RATE
        ),
        callbacks=callbacks,
    )
    return np.concatenate([algorithm.update[f"model.{name}"].ravel() for name in trained])
