"""A declared run gives one result, however often it is killed, and readers are told how it came."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from onebit.__main__ import main
from onebit.experiments import experiment, experiments, measured
from onebit.experiments.binaryconnect_mnist import dropout_mlp
from onebit.experiments.binarynet_mnist import dropout_binarynet
from onebit.experiments.bitnet_shakespeare import CONTEXT, WINDOWS, TernaryThreshold, Text
from onebit.experiments.command import listing
from onebit.experiments.declare import Run, resolve
from onebit.experiments.results import Difference, read_result, result_file, weights_file
from onebit.experiments.runner import (
    Processes,
    Training,
    _lock,
    checkpoint_folder,
    execute,
    rate_beyond,
    repeat,
)
from onebit.models import Transformer, binaryconnect_mlp, binarynet_mlp
from onebit.optim import quantized_layers
from onebit.quantizers import TernaryAbsMean

ROOT = Path(__file__).parents[1]
STORED = sorted(p for p in (ROOT / "results").glob("*/*/*.json") if p.stem[-1].isdigit())
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Keep the tests' checkpoints and results out of the real folders, and off two threads."""
    monkeypatch.setenv("ONEBIT_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("ONEBIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def smoke(table, arm, seed=0, **changes):
    """Give a run of the smallest budget, narrowed to 16 units where it has units."""
    run = next(r for r in experiment(table).runs("smoke") if (r.arm.name, r.seed) == (arm, seed))
    arguments = run.arm.network.arguments
    if "mlp" in run.arm.network.builder or "dropout" in run.arm.network.builder:
        arguments = {**arguments, "width": 16}
    network = dataclasses.replace(run.arm.network, arguments=arguments)
    return dataclasses.replace(run, arm=dataclasses.replace(run.arm, network=network), **changes)


def epochs(training, number):
    for _ in range(number):
        training.epoch(lambda: None)
    return training


# ---- declarations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", experiments())
def test_every_table_has_its_budgets_and_no_arm_twice(name):
    table = experiment(name)
    assert [budget.name for budget in table.budgets] == ["smoke", "short", "book", "paper"]
    assert table.budget("book").seeds == 3
    assert (
        len({arm.name for arm in table.arms})
        == len({a.label for a in table.arms})
        == len(table.arms)
    )
    for budget in table.budgets:
        arms = table.arms_of(budget.name)
        assert budget.arms is None or {arm.name for arm in arms} == set(budget.arms)
        runs = list(table.runs(budget.name))
        assert len({run.digest for run in runs}) == len(runs)
        assert {run.seed for run in runs} == set(range(budget.seeds))


@pytest.mark.parametrize("name", experiments())
def test_a_run_survives_being_written_down(name):
    for run in experiment(name).runs("paper"):
        again = Run.from_data(json.loads(json.dumps(run.as_data())))
        assert (again, again.digest) == (run, run.digest)


def test_xnor_net_is_ablated_by_ten_arms_at_least():
    assert len(experiment("xnor-fashion").arms) >= 10


def test_a_file_of_results_cannot_name_code_of_others():
    with pytest.raises(ValueError, match="only functions of onebit"):
        resolve("os:system")


def test_names_that_are_not_there_are_refused_with_those_that_are():
    with pytest.raises(KeyError, match=r"no table 'xnor'.*xnor-fashion"):
        experiment("xnor")
    with pytest.raises(KeyError, match=r"no budget 'big'.*book"):
        experiment("width").budget("big")


# ---- networks ----------------------------------------------------------------------------------


def test_dropout_changes_nothing_but_training_and_the_names_of_weights_stay():
    x = torch.randint(0, 256, (50, 784)).float()
    for ours, papers in (
        (dropout_binarynet(width=16), binarynet_mlp(width=16)),
        (dropout_mlp(weights="real", width=16), binaryconnect_mlp("real", width=16)),
    ):
        ours(x)
        papers.load_state_dict(ours.state_dict())
        assert not torch.equal(ours(x), ours(x))
        papers.load_state_dict(ours.state_dict())
        assert torch.equal(ours.eval()(x), papers.eval()(x))


@pytest.mark.parametrize(("table", "arm"), [("binaryconnect-mnist", "stoch"),
                                            ("binarynet-mnist", "1024")])  # fmt: skip
def test_latent_weights_start_uniform_between_minus_one_and_one(table, arm):
    network = smoke(table, arm).arm.network
    model = resolve(network.builder)(**network.arguments)
    first = next(quantized_layers(model)).weight
    assert 0.999 < first.abs().max() <= 1
    assert first.square().mean().item() == pytest.approx(1 / 3, abs=0.01)


def test_what_dropout_sets_to_zero_enters_the_binary_product_as_zero():
    net = dropout_binarynet(width=64)
    seen = []
    net[1].register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    net(torch.rand(20, 784) * 255)
    assert sorted(seen[0].unique().tolist()) == [-2.0, 0.0, 2.0]
    assert net[1][0].input_quant is None


# ---- training ----------------------------------------------------------------------------------

#: One of each kind: stochastic weights, dropout, SGD, Adam, BitNet's recipe, images, a text.
KINDS = [
    ("binaryconnect-mnist", "stoch"),
    ("binaryconnect-mnist", "dropout"),
    ("binarynet-mnist", "1024"),
    ("xnor-fashion", "xnor-k"),
    ("bitnet-shakespeare", "b1.58-32"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "arm"), KINDS)
def test_a_state_holds_all_that_the_next_epoch_depends_on(table, arm, tmp_path):
    run = smoke(table, arm, epochs=4)
    whole = epochs(Training(run, 0.03, CPU, Processes()), 3)
    torch.save(epochs(Training(run, 0.03, CPU, Processes()), 1).state(), tmp_path / "state")
    torch.manual_seed(1234)  # whatever else the process did meanwhile
    resumed = Training(run, 0.03, CPU, Processes())
    resumed.load(torch.load(tmp_path / "state", weights_only=True))
    epochs(resumed, 2)
    assert resumed.curve == whole.curve
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


CHILD = """
import json, sys
from onebit.experiments.declare import Run
from onebit.experiments.runner import execute
import torch
torch.set_num_threads(1)
execute(Run.from_data(json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_run_killed_twice_ends_like_one_that_was_left_alone(tmp_path, monkeypatch):
    run = smoke("binaryconnect-mnist", "stoch", rows=1000, epochs=60)
    recipe = dataclasses.replace(run.arm.recipe, rate=0.3)
    run = dataclasses.replace(run, arm=dataclasses.replace(run.arm, recipe=recipe, probes=()))
    checkpoints = checkpoint_folder() / run.table

    def start():
        return subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(run.as_data())])

    def done():
        found = list(checkpoints.glob("*.pt"))
        return len(torch.load(found[0], weights_only=True)["curve"]["loss"]) if found else 0

    reached = [0]
    for _ in range(2):
        child = start()
        while done() <= reached[-1]:
            assert child.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        reached.append(done())
    assert 0 < reached[1] < reached[2] < run.epochs
    path = result_file(run.table, run.budget, run.arm.name, run.seed)
    assert not path.exists()
    assert start().wait() == 0
    broken = read_result(path)
    assert not list(checkpoints.glob("*.pt"))

    monkeypatch.setenv("ONEBIT_RESULTS", str(tmp_path / "unbroken"))
    unbroken = read_result(execute(run))
    assert broken["curve"] == unbroken["curve"]
    assert broken["outcome"] == unbroken["outcome"]


def test_the_rate_falls_exponentially_over_the_whole_training_from_glorots_multiples():
    run = smoke("binaryconnect-mnist", "det", rows=1000, epochs=3)
    training = Training(run, 0.1, CPU, Processes())
    first = [group["lr"] for group in training.optimizer.param_groups]
    assert first[:2] == pytest.approx([0.1 * (784 + 16) / 1.5, 0.1 * 32 / 1.5])
    assert first[-1] == 0.1
    epochs(training, 3)
    steps = 3 * training.steps
    left = run.arm.recipe.final ** ((steps - 1) / steps)
    last = [group["lr"] for group in training.optimizer.param_groups]
    assert last == pytest.approx([rate * left for rate in first])
    assert training.curve["rate"][-1] == pytest.approx(0.1 * left, rel=1e-5)


def test_latent_weights_stay_within_one_and_real_ones_are_left_alone():
    binary = epochs(Training(smoke("xnor-fashion", "xnor"), 0.5, CPU, Processes()), 1).model
    assert binary.conv2.weight.abs().max() == 1
    assert binary.conv1.weight.abs().max() > 1


def test_the_last_ten_thousand_training_images_validate():
    task = resolve("onebit.experiments.tasks:mnist_rows")(None)
    images, labels = task._sets["validation"]
    whole = resolve("onebit.data:mnist")("train")
    assert torch.equal(labels, whole[1][-10_000:]) and len(images) == 10_000
    assert task.rows == 50_000 and len(task.inputs("test")) == 10_000


def test_the_result_is_the_test_error_at_the_best_validation_epoch():
    content = read_result(execute(smoke("xnor-fashion", "binarynet", epochs=5)))
    curve, outcome = content["curve"], content["outcome"]
    best = min(range(5), key=lambda i: curve["validation"][i])
    assert outcome["epoch"] == best + 1
    assert (outcome["value"], outcome["validation"]) == (
        curve["test"][best],
        curve["validation"][best],
    )


def test_a_rate_is_chosen_once_by_validation_and_serves_every_seed():
    run = smoke("binaryconnect-mnist", "det")
    execute(run)
    rates = read_result(result_file(run.table, "smoke", "det", 0).with_name("det-rates.json"))
    by_rate = {t["rate"]: min(t["curve"]["validation"]) for t in rates["tried"]}
    assert set(by_rate) >= set(run.arm.recipe.rates)
    assert by_rate[rates["chosen"]] == min(by_rate.values())
    path = result_file(run.table, "smoke", "det", 0).with_name("det-rates.json")
    path.write_text(path.read_text().replace(f'"chosen": {rates["chosen"]}', '"chosen": 0.07'))
    second = read_result(execute(dataclasses.replace(run, seed=1)))
    assert second["outcome"]["rate"] == 0.07


def test_a_grid_grows_by_its_factor_until_the_best_rate_has_neighbours_on_both_sides():
    assert rate_beyond({1.0: 3.0, 2.0: 2.0, 4.0: 1.0}, 6) == 8.0
    assert rate_beyond({1.0: 1.0, 3.0: 2.0, 4.0: 3.0}, 6) == pytest.approx(1 / 3, abs=1e-6)
    assert rate_beyond({1.0: 3.0, 2.0: 2.0, 4.0: math.inf}, 6) is None
    assert rate_beyond({1.0: 3.0, 2.0: 2.0, 4.0: 1.0}, 3) is None
    assert rate_beyond({1.0: 3.0}, 6) is None


def test_a_search_goes_on_where_the_end_of_its_grid_is_best():
    run = smoke("binaryconnect-mnist", "det")
    recipe = dataclasses.replace(run.arm.recipe, rates=(1e-6, 2e-6))  # far too small
    run = dataclasses.replace(run, arm=dataclasses.replace(run.arm, recipe=recipe))
    execute(run)
    rates = read_result(result_file(run.table, "smoke", "det", 0).with_name("det-rates.json"))
    tried = [entry["rate"] for entry in rates["tried"]]
    assert len(tried) > 2 and rates["chosen"] in tried
    best = {entry["rate"]: min(entry["curve"]["validation"]) for entry in rates["tried"]}
    assert rates["chosen"] == min(best, key=best.__getitem__)


def test_a_training_that_diverged_is_never_the_best():
    training = Training(smoke("xnor-fashion", "float"), 0.01, CPU, Processes())
    training.curve["loss"] = [0.0] * 3
    training.curve["validation"] = [math.nan, 2.0, 1.5]
    assert training.best_epoch == 3


def test_stochastic_weights_are_tested_by_the_papers_rule_and_by_three_others():
    run = smoke("binaryconnect-mnist", "stoch")
    outcome = read_result(execute(run))["outcome"]
    probes = outcome["probes"]
    rules = {"signs", "real weights"}
    assert set(probes) == rules | {f"{rule}, recalibrated" for rule in rules}
    assert all(0 < error <= 100 for error in probes.values())
    assert probes["real weights"] == outcome["value"]
    assert len(set(probes.values())) > 1


def test_bitnet_is_judged_on_plays_that_training_never_sees():
    train, held_out, _ = resolve("onebit.data:shakespeare")()
    task = Text(None)
    assert torch.equal(task._texts["test"], held_out)
    assert torch.equal(torch.cat([task._texts["train"], task._texts["validation"]]), train)
    starts = task.order(torch.Generator().manual_seed(0))
    assert len(starts) == WINDOWS and starts.min() >= 0 and starts.max() + CONTEXT < len(train)


def test_a_language_model_is_trained_on_the_windows_that_were_drawn():
    task = Text(32)
    seen = []

    def guess(codes):
        seen.append(codes)
        return torch.zeros(*codes.shape, 83)

    assert task.loss(guess, torch.tensor([5, 900]), "").item() == pytest.approx(math.log2(83))
    text = task._texts["train"]
    assert torch.equal(seen[0], torch.stack([text[5 : 5 + CONTEXT], text[900 : 900 + CONTEXT]]))


def test_b1_is_judged_per_tensor_too_and_b1_58_tells_its_zeros():
    for arm, probe in (("b1-32", "one scale per tensor"), ("b1.58-32", "zeros")):
        run = smoke("bitnet-shakespeare", arm)
        recipe = dataclasses.replace(run.arm.recipe, rate=0.01)
        run = dataclasses.replace(run, arm=dataclasses.replace(run.arm, recipe=recipe))
        outcome = read_result(execute(run))["outcome"]
        assert list(outcome["probes"]) == [probe]
        if probe == "zeros":  # uniform weights: |w| < γ / 2 = half of half the bound
            assert outcome["probes"]["zeros"] == pytest.approx(25, abs=1)
        else:
            gap = outcome["probes"][probe] - outcome["value"]
            assert gap != 0 and abs(gap) < 0.1


def test_other_thresholds_differ_from_b1_58_in_nothing_but_the_zeros():
    x = torch.randn(40, 30)
    half, gamma = TernaryThreshold(0.5).quantize(x)
    codes, scale = TernaryAbsMean().quantize(x)
    assert torch.equal(half, codes) and gamma == scale
    quarter, _ = TernaryThreshold(0.25).quantize(x)
    assert torch.equal(quarter, x.sign() * (x.abs() > gamma / 4))
    w = x.clone().requires_grad_()
    TernaryThreshold(1.0)(w).sum().backward()
    assert torch.allclose(w.grad, torch.ones_like(w))
    for arm, share in (("b1.58-quarter-64", 12.5), ("b1.58-whole-64", 50)):
        arm = next(a for a in experiment("bitnet-shakespeare").arms if a.name == arm)
        torch.manual_seed(0)
        model = resolve(arm.network.builder)(**arm.network.arguments)
        torch.manual_seed(0)
        plain = Transformer(83, width=64, depth=4, heads=4)
        assert torch.equal(
            model.blocks[3].attention.key.weight, plain.blocks[3].attention.key.weight
        )
        (probe,) = arm.probes  # uniform weights: |w| < t · γ = t times half the bound
        assert resolve(probe)(model, None)["zeros"] == pytest.approx(share, abs=1)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_resumes_to_the_same(tmp_path):
    arm = next(a for a in experiment("bitnet-shakespeare").arms if a.name == "b1.58-32")
    network = dataclasses.replace(
        arm.network, arguments={**arm.network.arguments, "width": 16, "depth": 1}
    )
    run = smoke("bitnet-shakespeare", "b1.58-32", epochs=3, compiled=True)
    run = dataclasses.replace(run, arm=dataclasses.replace(arm, network=network))
    eager = epochs(Training(dataclasses.replace(run, compiled=False), 0.01, CPU, Processes()), 3)
    whole = epochs(Training(run, 0.01, CPU, Processes()), 3)
    assert whole.curve["loss"] == pytest.approx(eager.curve["loss"], abs=1e-3)
    assert whole.model.state_dict().keys() == eager.model.state_dict().keys()
    torch.save(epochs(Training(run, 0.01, CPU, Processes()), 1).state(), tmp_path / "state")
    resumed = Training(run, 0.01, CPU, Processes())
    resumed.load(torch.load(tmp_path / "state", weights_only=True))
    assert epochs(resumed, 2).curve == whole.curve


def test_a_run_that_another_process_trains_is_left_to_it():
    run = smoke("xnor-fashion", "float")
    with _lock("xnor-fashion-smoke-float-0", Processes(), wait=False) as mine:
        assert mine
        assert execute(run) is None
    assert execute(run).is_file()
    assert not list(checkpoint_folder().rglob("*.lock"))


def test_a_batch_that_processes_cannot_share_evenly_is_refused():
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 100 evenly"):
        Training(smoke("xnor-fashion", "float"), 0.1, CPU, Processes(0, 3))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    # Without batch norm, the mean of two halves' gradients is the gradient of the batch.
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "onebit", "reproduce", "xnor-fashion", "--budget", "smoke", "--seed", "0"]
    arms = ["--arm", "float-no-bn", "--arm", "xnor"]
    found = []
    for launcher, folder in ([], "one"), (torchrun, "two"):
        environment = os.environ | {
            "ONEBIT_RESULTS": str(tmp_path / folder),
            "ONEBIT_CHECKPOINTS": str(tmp_path / folder / "checkpoints"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, *launcher, *command, *arms],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        folder = tmp_path / folder / "xnor-fashion" / "smoke"
        found.append([read_result(folder / f"{arm}-0.json") for arm in ("float-no-bn", "xnor")])
    (one, _), (two, shared) = found
    assert [one["provenance"]["processes"], two["provenance"]["processes"]] == [1, 2]
    assert two["provenance"]["command"].startswith("torchrun --nproc-per-node 2 -m onebit")
    assert two["curve"]["loss"] == pytest.approx(one["curve"]["loss"], abs=1e-4)
    assert len(shared["curve"]["loss"]) == 2


# ---- results -----------------------------------------------------------------------------------


def test_a_stored_run_trains_again_to_the_same_figure(capsys):
    path = execute(smoke("binaryconnect-mnist", "stoch"))
    stored, found = repeat(path)
    assert stored == found
    assert main(["reproduce", "--again", str(path)]) == 0
    content = json.loads(path.read_text())
    content["outcome"]["value"] += 0.01
    path.write_text(json.dumps(content))
    assert main(["reproduce", "--again", str(path)]) == 1
    assert "not the same" in capsys.readouterr().out


def test_what_cannot_be_trained_again_is_refused_with_what_can(tmp_path, capsys):
    content = {
        "missing.json": None,
        "damaged.json": "{",
        "list.json": "[]",
        "binary.json": b"\xff\xfe",
        "rates.json": '{"format": 1, "tried": {}}',
    }
    for name, text in content.items():
        path = tmp_path / name
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert main(["reproduce", "--again", str(path)]) == 2
        told = capsys.readouterr().err
        assert name in told and "it takes the file of one run, such as" in told
    assert main(["reproduce", "--again", str(tmp_path)]) == 2, "a folder"


def test_a_result_says_how_it_came_about():
    content = read_result(execute(smoke("xnor-fashion", "xnor", seed=1)))
    told = content["provenance"]
    assert told["command"] == (
        "python -m onebit reproduce xnor-fashion --budget smoke --arm xnor --seed 1 "
        "--device cpu --threads 1"
    )
    assert told["versions"]["torch"] == torch.__version__
    assert (told["device"], told["threads"], told["processes"]) == ("cpu", 1, 1)
    assert told["cpu"] and told["commit"] and told["finished"]
    assert told["cpu_seconds"] > 0 and told["wall_seconds"] > 0
    assert Run.from_data(content["run"]) == smoke("xnor-fashion", "xnor", seed=1)


def test_kept_weights_are_those_of_the_best_epoch():
    run = smoke("xnor-fashion", "xnor", epochs=3)
    content = read_result(execute(run))
    found = measured("xnor-fashion", "smoke")
    model = found.build("xnor")
    model.load_state_dict(found.weights("xnor"))
    task = resolve(run.arm.recipe.data)(run.rows)
    assert task.evaluate(model, "test") == content["outcome"]["value"]
    execute(smoke("xnor-fashion", "bwn-no-alpha"))
    with pytest.raises(FileNotFoundError, match=r"was not kept.*xnor"):
        measured("xnor-fashion", "smoke").weights("bwn-no-alpha")


def write(table, budget, arm, seed, value, **outcome):
    """Write what a run would have left."""
    run = next(r for r in experiment(table).runs(budget) if (r.arm.name, r.seed) == (arm, seed))
    path = result_file(table, budget, arm, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = [0.0] * run.epochs
    content = {
        "format": 1,
        "run": run.as_data(),
        "outcome": {"value": value, "validation": value, "epoch": 1, "rate": 0.1,
                    "rows": 50_000, "probes": {}, **outcome},
        "curve": {"loss": entry, "validation": entry, "test": entry, "rate": entry},
        "provenance": {"cpu": "a processor", "device": "cpu", "threads": 1, "processes": 1,
                       "cpu_seconds": 90.0},
    }  # fmt: skip
    path.write_text(json.dumps(content))


def test_readers_get_mean_and_standard_deviation_as_papers_print_them():
    for seed, value in enumerate([8.0, 9.0, 10.0]):
        write("xnor-fashion", "short", "xnor", seed, value, probes={"signs": 2 * value})
    write("xnor-fashion", "short", "float", 0, 6.5)
    found = measured("xnor-fashion")
    assert found.arms == ("float", "xnor")  # in the table's order
    assert found.write("xnor") == "9.00 ± 1.00 %"
    assert found.write("float") == "6.50 %"
    assert found.values("xnor", "signs") == [16.0, 18.0, 20.0]
    assert found.mean("xnor", "signs") == 18.0
    assert str(found.as_table()).splitlines()[1].split() == ["full", "precision", "6.50", "%", "1"]
    assert found.provenance("xnor") == (
        "budget “short”, 2 epochs of 50 000 examples, 3 seeds; a processor, 1 thread; "
        "90 CPU seconds a run"
    )


def test_arms_are_compared_in_pairs_of_one_seed():
    for seed, (a, b) in enumerate([(8.0, 7.0), (9.0, 7.0), (11.0, 8.0)]):
        write("xnor-fashion", "short", "xnor", seed, a)
        write("xnor-fashion", "short", "bwn", seed, b)
    write("xnor-fashion", "short", "float", 0, 6.5)
    found = measured("xnor-fashion")
    gap = found.difference("xnor", "bwn")  # 1, 2, 3: mean 2, standard error 1/√3
    assert (gap.mean, gap.pairs) == (2.0, 3)
    assert (gap.low, gap.high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert not gap.resolved and str(gap) == "+2.00 (−0.48 to +4.48), not resolved"
    assert str(found.difference("float", "xnor")) == "−1.50 (one pair)"
    assert not found.difference("float", "xnor").resolved
    assert Difference(-2.0, -3.0, -1.0, 3).resolved


def test_a_gap_that_closes_with_size_has_a_trend_below_zero():
    def arms(width):
        return f"b1.58-{width}", f"full-{width}"

    pairs = {width: arms(width) for width in (64, 96, 128)}
    closing = (0.1, 0.2, 0.3)  # per doubling, one a seed
    for width, (ternary, full) in pairs.items():
        for seed, by in enumerate(closing):
            write("bitnet-shakespeare", "book", full, seed, 2.0)
            write("bitnet-shakespeare", "book", ternary, seed, 3.0 - by * math.log2(width / 64))
    found = measured("bitnet-shakespeare", "book")
    trend = found.trend(pairs)
    half = 4.303 * 0.1 / 3**0.5
    assert (trend.mean, trend.low, trend.high) == pytest.approx((-0.2, -0.2 - half, -0.2 + half))
    assert trend.pairs == 3 and str(trend) == "−0.200 (−0.448 to +0.048), not resolved"
    with pytest.raises(ValueError, match="two sizes or more, got \\[64\\]"):
        found.trend({64: pairs[64]})
    result_file("bitnet-shakespeare", "book", "full-96", 1).unlink()
    assert measured("bitnet-shakespeare", "book").trend(pairs).pairs == 2
    for seed in (0, 2):
        result_file("bitnet-shakespeare", "book", "b1.58-64", seed).unlink()
    with pytest.raises(ValueError, match="no seed has runs of all"):
        measured("bitnet-shakespeare", "book").trend(pairs)


def test_the_largest_complete_budget_is_read_and_otherwise_the_one_with_most_runs():
    table = "binarynet-mnist"
    for run in experiment(table).runs("short"):
        write(table, "short", run.arm.name, run.seed, 2.0)
    for run in list(experiment(table).runs("book"))[:-1]:
        write(table, "book", run.arm.name, run.seed, 1.0)
    assert measured(table).budget == "short"
    write(table, "book", run.arm.name, run.seed, 1.0)
    last = list(experiment(table).runs("book"))[-1]
    write(table, "book", last.arm.name, last.seed, 1.0)
    assert measured(table).budget == "book"
    assert measured(table, "short").mean("1024") == 2.0
    result_file(table, "short", "1024", 0).unlink()
    last_file = result_file(table, "book", last.arm.name, last.seed)
    last_file.unlink()
    assert measured(table).budget == "book"


def test_measured_stands_beside_reported_with_its_provenance():
    write("binaryconnect-mnist", "short", "det", 0, 1.9)
    rows = [
        ("det", "bc.table2.mnist.det", "fewer epochs"),
        ("stoch", "bc.table2.mnist.stoch", "not run yet"),
    ]
    told = measured("binaryconnect-mnist").compare(rows, what="test error on MNIST")
    assert told.rows[0][1:] == ("1.29 ± 0.08 %", "1.90 %", "1", "fewer epochs")
    assert told.rows[1][1:] == ("1.18 ± 0.04 %", "–", "0", "not run yet")
    assert "Measured: budget “short”, 3 epochs of 50 000 examples, 1 seed" in str(told)


def test_effects_of_a_paper_stand_beside_paired_differences():
    for seed, value in enumerate((10.0, 10.2, 10.1)):
        write("xnor-fashion", "short", "xnor", seed, value)
        write("xnor-fashion", "short", "xnor-cbap", seed, value + 1 + seed / 10)
    keys = ("xnor.table3.top1.cbap", "xnor.table3.top1.bacp")
    rows = [
        ("order", "xnor-cbap", "xnor", keys, "the task"),
        ("scale", "bwn", "bwn-no-alpha", None, "not run yet"),
    ]
    told = measured("xnor-fashion").effects(rows, what="points lost")
    assert told.rows[0][1] == "+13.9", "44.2 − 30.3"
    assert told.rows[0][2] == "+1.10 (+0.85 to +1.35)"
    assert told.rows[1][1:] == ("–", "–", "not run yet")
    assert "Table 3" in told.caption[1] and "3 seeds" in told.caption[2]


def test_late_gain_is_what_the_best_validation_fell_by_at_the_end():
    write("width", "short", "mnist-float-16", 0, 5.0)
    path = result_file("width", "short", "mnist-float-16", 0)
    content = json.loads(path.read_text())
    content["curve"]["validation"] = [9.0, 7.0, 8.0, 6.5, 6.0, 6.2]
    path.write_text(json.dumps(content))
    found = measured("width")
    assert found.late_gain("mnist-float-16") == 1.0
    assert found.late_gain("mnist-float-16", 1 / 3) == 0.5
    assert found.late_gain("mnist-float-16", 1 / 6) == 0.0
    for last in (0, 1, -0.5, float("nan")):
        with pytest.raises(ValueError, match=r"last is .*between 0 and 1, such as 0.25"):
            found.late_gain("mnist-float-16", last)


def test_what_is_not_there_is_named_with_its_cure():
    with pytest.raises(FileNotFoundError, match="make reproduce TABLE=width"):
        measured("width")
    write("xnor-fashion", "short", "xnor", 0, 8.0)
    found = measured("xnor-fashion")
    with pytest.raises(KeyError, match=r"no measured arm of xnor-fashion 'xnr'; near it: xnor"):
        found.mean("xnr")
    with pytest.raises(KeyError, match="no run from seed 2"):
        found.run("xnor", 2)
    with pytest.raises(KeyError, match="no probe 'signs'"):
        found.values("xnor", "signs")
    write("xnor-fashion", "short", "bwn", 1, 8.0)
    with pytest.raises(ValueError, match="no seed in common"):
        measured("xnor-fashion").difference("xnor", "bwn")


def test_a_damaged_or_foreign_file_is_refused_by_name():
    write("xnor-fashion", "short", "xnor", 0, 8.0)
    path = result_file("xnor-fashion", "short", "xnor", 0)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match=r"xnor-0\.json has format 2, want 1"):
        measured("xnor-fashion")
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"xnor-0\.json is damaged"):
        measured("xnor-fashion")


def read_stored(path):
    table, budget, name = path.parts[-3:]
    arm, _, seed = name.removesuffix(".json").rpartition("-")
    return table, budget, arm, int(seed), read_result(path)


def bare(run):
    """Leave out what decides nothing: names for readers, and what is kept."""
    data = run.as_data()
    if run.arm.recipe.rate is not None:
        del data["search_epochs"], data["search_rows"]
    return {**data, "arm": {k: v for k, v in data["arm"].items()
                            if k not in ("label", "keep", "seeds")}}  # fmt: skip


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parts[-2]}-{path.stem}")
def test_a_stored_result_is_of_a_run_as_it_is_declared_today(path):
    table, budget, arm, seed, content = read_stored(path)
    declared = {(r.arm.name, r.seed): r for r in experiment(table).runs(budget)}
    assert bare(Run.from_data(content["run"])) == bare(declared[arm, seed])
    assert {len(entries) for entries in content["curve"].values()} == {content["run"]["epochs"]}
    assert content["outcome"]["value"] == content["curve"]["test"][content["outcome"]["epoch"] - 1]


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "weights").glob("*")), ids=str)
def test_shipped_weights_are_small_and_belong_to_a_result(path):
    assert path.stat().st_size <= 2_000_000
    assert path.suffix == ".safetensors"
    assert path in [
        ROOT / "results" / "weights" / weights_file(*read_stored(p)[:4]).name for p in STORED
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "results" / "weights").glob("*")), ids=str)
def test_shipped_weights_have_the_error_that_is_told_of_them(path):
    (result,) = [p for p in STORED if weights_file(*read_stored(p)[:4]).name == path.name]
    content = read_result(result)
    run = Run.from_data(content["run"])
    model = resolve(run.arm.network.builder)(**run.arm.network.arguments)
    model.load_state_dict(load_file(path))
    error = resolve(run.arm.recipe.data)(run.rows).evaluate(model, "test")
    # Another processor rounds otherwise, which may move images that lie on a border.
    assert error == pytest.approx(content["outcome"]["value"], abs=0.1)


# ---- the command -------------------------------------------------------------------------------


def test_the_list_tells_every_table_what_is_there_and_what_the_rest_costs():
    text = listing()
    for table in experiments().values():
        assert f"{table.name}: {table.about}" in text
    assert "0 of  45 runs there; all cost ? core-hours" in text
    write("xnor-fashion", "short", "xnor", 0, 8.0)
    assert f"all cost over {3 * 90 / 3600:.1f} core-hours, the rest over" in listing()
    for arm in experiment("xnor-fashion").arms:
        write("xnor-fashion", "short", arm.name, 0, 8.0)
    # 90 s for 2 epochs; the five arms without batch norm try three rates first, for 2 epochs of a
    # fifth of the examples.
    hours = (45 * 2 + 5 * 3 * 2 / 5) * 45 / 3600
    left = (30 * 2) * 45 / 3600
    assert (
        f"15 of  45 runs there; all cost {hours:.1f} core-hours, the rest {left:.1f}" in listing()
    )


def test_what_cannot_be_run_is_refused_with_what_can(capsys):
    assert main(["reproduce", "xnor"]) == 2
    assert "near it: xnor-fashion" in capsys.readouterr().err
    assert main(["reproduce", "width", "--budget", "huge"]) == 2
    assert "it has: smoke, short, book, paper" in capsys.readouterr().err
    assert main(["reproduce", "xnor-fashion", "--arm", "xnr"]) == 2
    assert "no arm 'xnr'" in capsys.readouterr().err
    assert main(["reproduce", "xnor-fashion", "--seed", "7"]) == 2
    assert "3 seeds, from 0; not: 7" in capsys.readouterr().err


def test_one_arm_of_one_table_can_be_trained_by_command(capsys):
    command = ["reproduce", "xnor-fashion", "--budget", "smoke", "--arm", "float", "--seed", "1"]
    assert main(command) == 0
    value = read_result(result_file("xnor-fashion", "smoke", "float", 1))["outcome"]["value"]
    assert capsys.readouterr().out == f"xnor-fashion smoke float 1: test error {value:.2f} %\n"
    assert main(command) == 0  # there already


def test_make_reproduce_hands_on_table_and_budget():
    told = subprocess.run(
        ["make", "-n", "reproduce", "TABLE=width", "BUDGET=smoke"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "-m onebit reproduce width --budget smoke" in told


def test_a_smaller_budget_is_never_longer():
    for table in experiments().values():
        lengths = [budget.epochs for budget in table.budgets]
        assert lengths == sorted(lengths)
