"""The loop does what it says, the same way every time, and leaves modes as it found them."""

import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from onebit.layers import BinaryConnectLinear, BinaryLinear
from onebit.training import (
    Epoch,
    error_rate,
    evaluation_mode,
    predict,
    recalibrate_batch_norm,
    squared_hinge,
    train,
)


def task(n=90):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    return x, (x[:, 0] > 0).long()


# ---- loss --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.tuples(*[st.floats(-3, 3)] * 3)), min_size=1))
def test_squared_hinge_is_its_formula(rows):
    targets = torch.tensor([t for t, _ in rows])
    outputs = torch.tensor([list(o) for _, o in rows], dtype=torch.float64)
    terms = [
        max(0.0, 1 - (1 if c == t else -1) * o) ** 2 for t, row in rows for c, o in enumerate(row)
    ]
    assert squared_hinge(outputs, targets).item() == pytest.approx(sum(terms) / len(terms))


def test_squared_hinge_gradient_is_its_formula():
    outputs = torch.tensor([[0.5, -2.0], [3.0, 0.5]], dtype=torch.float64, requires_grad=True)
    squared_hinge(outputs, torch.tensor([0, 1])).backward()
    # d/do mean max(0, 1 − t o)² = −2 t max(0, 1 − t o) / 4
    assert outputs.grad.tolist() == [[-0.25, 0.0], [2.0, -0.25]]
    assert torch.autograd.gradcheck(squared_hinge, (outputs, torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "message"),
    [
        (torch.ones(2), torch.tensor([0, 1]), ValueError, r"must have shape \(batch, classes\)"),
        (torch.ones(2, 3), torch.tensor([0]), ValueError, r"got \(2, 3\) and \(1,\)"),
        (torch.ones(2, 3), torch.tensor([[0], [1]]), ValueError, r"got \(2, 3\) and \(2, 1\)"),
        (torch.ones(1, 3), torch.tensor([0], dtype=torch.uint8), TypeError, r"use \.long\(\)"),
    ],
)
def test_squared_hinge_refuses_what_does_not_fit(outputs, targets, error, message):
    with pytest.raises(error, match=message):
        squared_hinge(outputs, targets)


# ---- loop --------------------------------------------------------------------------------------


def run(seed=0, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(
        BinaryConnectLinear(4, 8, stochastic=True), nn.BatchNorm1d(8), BinaryLinear(8, 2)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    options = {"epochs": 3, "batch_size": 20, **options}
    return train(model, optimizer, task(), task(), **options), model


def test_a_seed_fixes_the_whole_run():
    (first, model), (second, twin), (other, _) = run(), run(), run(seed=1)
    assert first == second != other
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_every_epoch_sees_each_row_once_in_a_new_order_without_the_incomplete_minibatch():
    x = torch.arange(10.0).reshape(10, 1)
    y = torch.arange(10) % 2
    seen = []

    class Watch(nn.Linear):
        def forward(self, rows):
            if self.training:
                seen.append(rows.flatten().int().tolist())
            return super().forward(rows)

    model = Watch(1, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    steps = []
    history = train(model, optimizer, (x, y), (x, y), epochs=2, batch_size=3, on_step=steps.append)
    assert [len(rows) for rows in seen] == [3] * 6
    first, second = ([row for batch in epoch for row in batch] for epoch in (seen[:3], seen[3:]))
    assert len(set(first)) == len(set(second)) == 9 and first != second
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [epoch.number for epoch in history] == [1, 2]


def test_an_epoch_tells_the_mean_loss_of_its_minibatches_and_the_test_error():
    values = iter([3.0, 5.0, 10.0, 2.0])
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    history = train(
        model, optimizer, task(4), task(), epochs=2, batch_size=2,
        loss=lambda outputs, _: outputs.sum() * 0 + next(values),
    )  # fmt: skip
    assert history == [Epoch(n, v, error_rate(model, *task())) for n, v in ((1, 4.0), (2, 6.0))]


def test_the_scheduler_moves_with_every_minibatch():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    train(model, optimizer, task(60), task(), epochs=2, batch_size=20, scheduler=scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 / 7)


def test_progress_counts_the_epochs_under_its_label(monkeypatch):
    calls = []
    bar = types.SimpleNamespace(tqdm=lambda it, **kw: calls.append((list(it), kw)) or it)
    monkeypatch.setitem(sys.modules, "tqdm.auto", bar)
    run(progress="fit")
    assert calls[0][0] == [1, 2, 3] and calls[0][1]["desc"] == "fit"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 91}, ValueError, "90 rows, fewer than batch_size=91"),
        ({"batch_size": 0}, ValueError, "batch_size must"),
        ({"batch_size": 2.0}, TypeError, "batch_size must"),
        ({"epochs": -1}, ValueError, "epochs must"),
        ({"epochs": 1.5}, TypeError, "epochs must"),
    ],
)
def test_numbers_that_make_no_run_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


def test_sets_and_models_that_do_not_fit_are_refused():
    x, y = task()
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="train_set must hold as many inputs as class numbers"):
        train(model, optimizer, (x, y[1:]), (x, y), epochs=1)
    with pytest.raises(ValueError, match="test_set must hold as many inputs as class numbers"):
        train(model, optimizer, (x, y), (x, y[:1]), epochs=1, batch_size=10)
    with pytest.raises(TypeError, match="model must be a"):
        train(nn.Linear, optimizer, (x, y), (x, y), epochs=1, batch_size=10)


# ---- evaluation --------------------------------------------------------------------------------


def modes(model):
    return [m.training for m in model.modules()]


def partly_frozen():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), BinaryConnectLinear(4, 2)).train()
    model[0].eval()
    return model


def test_prediction_and_error_run_in_evaluation_mode_and_restore_every_mode():
    model = partly_frozen()
    before = modes(model)
    x, y = task()
    with torch.no_grad(), evaluation_mode(model):
        assert not any(modes(model))
        expected = model(x).argmax(1)
    assert modes(model) == before
    assert torch.equal(predict(model, x, batch_size=7), expected)
    assert error_rate(model, x, y) == 100 * (expected != y).double().mean().item()
    assert modes(model) == before


@pytest.mark.parametrize("f", [predict, recalibrate_batch_norm], ids=lambda f: f.__name__)
def test_modes_and_momenta_are_restored_after_an_error(f):
    model = partly_frozen()
    model.append(BinaryLinear(3, 2))
    before = modes(model)
    with pytest.raises(ValueError, match="BinaryLinear wants x with 3 features"):
        f(model, torch.ones(5, 4))
    assert modes(model) == before and model[0].momentum == 0.1


def test_evaluation_refuses_what_does_not_fit():
    x, y = task()
    with pytest.raises(ValueError, match="as many inputs as class numbers"):
        error_rate(nn.Identity(), x, y[:1])
    with pytest.raises(ValueError, match="x has no rows"):
        error_rate(nn.Identity(), x[:0], y[:0])
    with pytest.raises(ValueError, match="batch_size must"):
        predict(nn.Identity(), x, batch_size=0)
    with pytest.raises(TypeError, match="model must be a"):
        predict(lambda x: x, x)


def test_no_rows_give_no_classes():
    assert predict(nn.Linear(4, 2), torch.ones(0, 4)).shape == (0,)


# ---- batch norm --------------------------------------------------------------------------------


def test_recalibration_measures_what_reaches_each_batch_norm():
    torch.manual_seed(0)
    model = nn.Sequential(
        BinaryConnectLinear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), BinaryLinear(6, 3),
        nn.BatchNorm1d(3, momentum=0.3),
    ).double()  # fmt: skip
    x = torch.randn(50, 4, dtype=torch.float64) + 1
    recalibrate_batch_norm(model, x)
    with torch.no_grad():
        first = model[0](x)
        inner = (first - first.mean(0)) / (first.var(0, correction=0) + model[1].eps).sqrt()
        second = model[3](inner.relu())
    for norm, z in ((model[1], first), (model[4], second)):
        torch.testing.assert_close(norm.running_mean, z.mean(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(norm.running_var, z.var(0), rtol=1e-12, atol=1e-12)
    assert (model[1].momentum, model[4].momentum) == (0.1, 0.3)


def test_recalibration_averages_over_even_passes():
    norm = nn.BatchNorm1d(1).double()
    norm(torch.full((4, 1), 100.0, dtype=torch.float64))
    x = torch.randn(9, 1, dtype=torch.float64)
    recalibrate_batch_norm(norm, x, batch_size=4)  # 3, 3 and 3 rows, not 4, 4 and 1
    parts = x.split(3)
    torch.testing.assert_close(norm.running_mean, sum(p.mean(0) for p in parts) / 3)
    torch.testing.assert_close(norm.running_var, sum(p.var(0) for p in parts) / 3)


def test_recalibration_uses_the_weights_of_evaluation_and_restores_every_mode():
    model = nn.Sequential(BinaryConnectLinear(4, 6, stochastic=True), nn.BatchNorm1d(6))
    model[1].eval()
    before, weights = modes(model), model[0].weight.detach().clone()
    x, _ = task()
    recalibrate_batch_norm(model, x)
    with torch.no_grad():
        z = nn.functional.linear(x, weights, model[0].bias)
    torch.testing.assert_close(model[1].running_mean, z.mean(0))
    assert modes(model) == before and torch.equal(model[0].weight, weights)


def test_recalibration_refuses_no_rows():
    with pytest.raises(ValueError, match="x has no rows"):
        recalibrate_batch_norm(nn.BatchNorm1d(4), torch.ones(0, 4))
