"""Games of every shape that the contract promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_toys import (
    SGD,
    Continued,
    Cycle,
    Melody,
    Plain,
    Stacked,
    Toy,
    copies,
    difference,
    pictures,
    toy_game,
    vectors,
)
from tapes import record_on_tapes
from torch import Tensor, nn

from gan_core.data.examples import Batch, DataSpec
from gan_core.engine.execution import Engine
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.variant import OptimizerSpec, Stage


def cycle_game(steps: int = 3) -> Game:
    return toy_game(Cycle(steps), vectors(a=(2,), b=(2,)))


def melody_game(steps: int = 3) -> Game:
    return toy_game(Melody(steps), vectors(bar=(3,), previous=(3,), chord=(1,)))


def plain_game(steps: int = 3, **values: dict[str, object]) -> Game:
    return toy_game(Plain(steps, **values), vectors(point=(2,)))


class Mistaken(Plain):
    """A game whose methods answer in other forms than they should."""

    answers: dict[str, Any]

    def stages(self) -> Any:
        return self.answers["stages"](super().stages())

    def noise(self, stage: str) -> Any:
        return self.answers["noise"](super().noise(stage))

    def sample(self, stage: str, batch: Batch) -> Any:
        return self.answers["sample"](super().sample(stage, batch))


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("stages", lambda found: found[0], "`stages` of Mistaken: a Stage instead of a tuple of"),
        ("stages", lambda found: found[0].players, "`stages` of Mistaken: a tuple instead of a"),
        ("stages", lambda found: None, "`stages` of Mistaken: a NoneType instead of a tuple of St"),
        ("noise", lambda found: found[0], "`noise` of Mistaken: a NoiseSpec instead of a tuple of"),
        ("sample", lambda made: made["point"], "`sample` of Mistaken gives a Tensor, not tensors"),
        ("sample", lambda made: {"out": made["point"]}, "gives 'out', none of its `targets`, "),
        ("sample", lambda made: {}, "`sample` of Mistaken gives nothing, none of its `targets"),
    ],
)
def test_answers_of_other_forms_are_told_in_a_line(
    method: str, answer: Callable[[Any], Any], told: str
) -> None:
    variant = Mistaken(3)
    variant.answers = dict.fromkeys(("stages", "noise", "sample"), lambda found: found)
    variant.answers[method] = answer
    with pytest.raises(UserError, match=told) as caught:
        toy_game(variant, vectors(point=(2,))).sampler()(torch.arange(3))
    assert "\n" not in str(caught.value)


def test_names_of_a_player_are_no_text_and_players_of_a_stage_a_tuple() -> None:
    player = plain_game().stage.players[0]
    for field in ("networks", "reads", "second_order", "ema"):
        told = rf"player {player.name}: {field} is the text 'first', .* write \('first',\)"
        with pytest.raises(UserError, match=told):
            dataclasses.replace(player, **{field: "first"})
    with pytest.raises(UserError, match=r"players of stage one: a Player instead of .* a comma ma"):
        Stage("one", player, 3)  # type: ignore[arg-type]


def test_a_player_without_weights_has_nothing_to_learn() -> None:
    def build(self: Plain, data: DataSpec) -> None:
        Plain.build(self, data)
        self.generator = nn.Identity()  # type: ignore[assignment]

    variant = type("Idle", (Plain,), {"build": build})(3)
    with pytest.raises(UserError, match=r"player generator has nothing .* \(generator\) have no p"):
        toy_game(variant, vectors(point=(2,)))


def test_players_of_several_networks_share_a_batch_and_hand_tensors_over() -> None:
    game = cycle_game()
    variant = game.variant
    assert isinstance(variant, Cycle)
    before = copies(variant.state_dict())
    game.iterate()
    (batch,) = variant.handed
    assert set(batch) == {"a", "b", "fake_a", "fake_b"}
    # The fakes are those of the generators before their update, of this very batch.
    for name, value in before.items():
        if name.startswith("g_"):
            variant.get_parameter(name).data.copy_(value)
    with torch.no_grad():
        assert torch.equal(batch["fake_b"], variant.g_ab(batch["a"]))
        assert torch.equal(batch["fake_a"], variant.g_ba(batch["b"]))


@pytest.mark.parametrize(
    ("game", "owned"),
    [
        (cycle_game, {"generators": {"g_ab", "g_ba"}, "discriminators": {"d_a", "d_b"}}),
        (melody_game, {"generator": {"generator"}, "discriminator": {"discriminator"}}),
        (plain_game, {"generator": {"generator"}, "discriminator": {"discriminator"}}),
    ],
)
def test_a_turn_changes_the_networks_of_its_player_and_no_other(game, owned) -> None:
    playing = game()
    variant = playing.variant
    assert isinstance(variant, Toy)
    variant.watch()
    playing.play(2)
    assert {player for player, _ in variant.changed} == set(owned)
    assert all(moved == owned[player] for player, moved in variant.changed)


def test_a_turn_gives_no_gradient_to_other_players() -> None:
    game = plain_game()
    game.iterate()
    judge, maker = game.seats
    gradients = copies({str(i): p.grad for i, p in enumerate(judge.parameters)})
    maker.freeze(False)
    maker.update(maker.stream.next(), 1)  # the judge is frozen: its last gradients stay
    now = {str(i): p.grad for i, p in enumerate(judge.parameters)}
    assert difference(gradients, now) == []


def test_two_generator_turns_see_the_shared_batch_and_the_extra_tensors() -> None:
    game = melody_game()
    variant = game.variant
    assert isinstance(variant, Melody)
    game.play(2)
    assert [player for player, _ in variant.seen] == ["discriminator", "generator", "generator"] * 2
    first, second = [batch for _, batch in variant.seen[:3]], [b for _, b in variant.seen[3:]]
    assert set(first[0]) == {"bar", "previous", "chord", "latent"}
    assert all(difference(first[0], other) == [] for other in first)
    assert not torch.equal(first[0]["bar"], second[0]["bar"])
    # Rows belong together: a bar comes with its own predecessor and chord.
    stored = game.train.tensors
    for row, bar in enumerate(first[0]["bar"]):
        (place,) = (stored["bar"] == bar).all(1).nonzero().flatten().tolist()
        assert torch.equal(stored["previous"][place], first[0]["previous"][row])
        assert torch.equal(stored["chord"][place], first[0]["chord"][row])


def stacked_game(steps: int = 4) -> Game:
    return toy_game(Stacked(steps), pictures(40, size=8))


def test_each_stage_sees_its_own_view_and_the_second_leaves_the_first_as_it_was() -> None:
    game = stacked_game()
    game.play(4)
    assert game.stage.name == "I"
    assert game.examples_for_judgement(5, held_out=False)["image"].shape == (5, 1, 2, 2)
    assert game.sampler()(torch.arange(3))["image"].shape == (3, 1, 2, 2)
    first = copies(game.variant.state_dict())
    averaged = copies(game.sampler().network("coarse").state_dict())
    game.play(3)
    assert game.stage.name == "II"
    assert game.examples_for_judgement(5, held_out=True)["image"].shape == (5, 1, 4, 4)
    assert game.sampler()(torch.arange(3))["image"].shape == (3, 1, 4, 4)
    now = game.variant.state_dict()
    changed = {name.split(".")[0] for name in now if not torch.equal(now[name], first[name])}
    assert changed == {"coarse", "fine", "fine_judge"}
    # The first stage's generator stays as it was sampled from at its end: averaged.
    assert difference(averaged, copies(game.variant.coarse.state_dict())) == []  # type: ignore[attr-defined]
    for network in (game.variant.coarse, game.variant.coarse_judge):  # type: ignore[attr-defined]
        assert all(not p.requires_grad and p.grad is None for p in network.parameters())
        assert not network.training
    assert game.variant.fine.training  # type: ignore[attr-defined]
    game.play(9)
    assert game.finished
    assert game.step == 8
    assert game.examples_seen == 8 * 8


@pytest.mark.parametrize("cut", [2, 4, 6])
def test_a_game_of_two_stages_resumes_bit_for_bit(cut: int) -> None:
    whole = stacked_game()
    whole.play(8)
    begun = stacked_game()
    begun.play(cut)
    shared, own = begun.state_dict(), begun.rank_state()
    resumed = stacked_game()
    resumed.load_state_dict(shared)
    resumed.load_rank_state(own)
    resumed.play(8)
    assert difference(whole.state_dict(), resumed.state_dict()) == []
    assert difference(whole.rank_state(), resumed.rank_state()) == []
    assert whole.examples_seen == resumed.examples_seen


@pytest.mark.parametrize(("cut", "total"), [(3, 12), (6, 10)])
def test_other_numbers_of_steps_are_those_of_the_stages_not_yet_ended(cut: int, total: int) -> None:
    begun = stacked_game(4)
    begun.play(cut)
    longer = stacked_game(6)
    longer.load_state_dict(begun.state_dict())
    longer.play(99)
    assert longer.finished
    assert (longer.step, longer.steps) == (total, total)
    assert longer.seats[0].updates == 6  # of the last stage, whole


def test_a_stage_made_shorter_than_it_was_played_ends_and_the_next_one_is_played_whole() -> None:
    begun, shorter = stacked_game(6), stacked_game(2)
    begun.play(5)
    shorter.load_state_dict(begun.state_dict())
    assert not shorter.finished
    assert shorter.steps == 5 + 2
    shorter.play(99)
    assert shorter.stage.name == "II"
    assert (shorter.step, shorter.steps, shorter.stage_start) == (7, 7, 5)
    assert shorter.seats[0].updates == 2
    last = stacked_game(1)
    last.load_state_dict(shorter.state_dict())
    assert last.finished  # nothing follows the second stage
    assert last.steps == 5 + 1


def test_an_average_goes_on_in_the_next_stage_where_its_network_does() -> None:
    game = toy_game(Continued(4), pictures(40))
    game.play(4)
    average = game.seats[1].averages["coarse"].state_dict()
    before = copies({str(i): t for i, t in enumerate(average["average"])})  # type: ignore[arg-type]
    live = list(game.variant.coarse.parameters())  # type: ignore[attr-defined]
    game._enter(1)
    after = game.seats[1].averages["coarse"].state_dict()
    assert after["updates"] == 4
    assert difference(before, {str(i): t for i, t in enumerate(after["average"])}) == []  # type: ignore[arg-type]
    assert not torch.equal(after["average"][0], live[0])  # type: ignore[index]
    assert game.seats[1].averages["fine"].updates == 0


def test_what_nobody_trains_any_more_has_the_first_ranks_statistics_everywhere() -> None:
    class Second(World):
        """As a rank sees it that is told the first one's tensors: all 7 here."""

        def broadcast(self, tensor: Tensor) -> Tensor:
            return tensor.fill_(7)

    game = toy_game(Stacked(3), pictures(40))
    game.play(3)
    game.world = Second()
    kept = copies(dict(game.variant.fine.named_buffers()))  # type: ignore[union-attr]
    game.seats[1].averages.clear()
    game._settle(game.stages[1])
    assert all((b == 7).all() for b in game.variant.coarse.buffers())  # type: ignore[union-attr]
    assert difference(kept, dict(game.variant.fine.named_buffers())) == []  # type: ignore[union-attr]


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_are_the_whole_batch(parts: int) -> None:
    plain = {"optimizer": SGD}  # Adam would not notice gradients of another size
    both = {**plain, "accumulate": parts}
    whole = plain_game(discriminator=plain, generator=plain)
    cut = plain_game(discriminator=both, generator=both)
    whole.play(3)
    cut.play(3)
    expected = whole.variant.state_dict()
    for name, value in cut.variant.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    assert cut.variant.sizes[0] == ("discriminator", 8 // parts)  # type: ignore[attr-defined]
    mine, theirs = cut.take_diagnostics(), whole.take_diagnostics()
    assert mine == pytest.approx(theirs, abs=1e-6)
    assert set(mine) == {"loss/discriminator", "loss/generator"}


def test_a_batch_that_cannot_be_cut_evenly_is_refused() -> None:
    game = plain_game(discriminator={"accumulate": 3})
    with pytest.raises(UserError, match="batch of 8 cannot be cut into 3 equal parts"):
        game.iterate()


def test_batch_scale_multiplies_the_batch_of_its_player_alone() -> None:
    game = plain_game(generator={"batch_scale": 2})
    game.iterate()
    assert game.variant.sizes == [("discriminator", 8), ("generator", 16)]  # type: ignore[attr-defined]
    assert game.examples_seen == 8


def test_k_can_be_changed_between_iterations() -> None:
    game = plain_game(6)
    game.play(1)
    game.set_turns("discriminator", 3)
    game.play(2)
    game.set_turns("discriminator", 1)
    game.play(1)
    turns = [player for player, _ in game.variant.sizes]  # type: ignore[attr-defined]
    once, thrice = ["discriminator", "generator"], ["discriminator"] * 3 + ["generator"]
    assert turns == once + thrice * 2 + once
    assert [seat.updates for seat in game.seats] == [8, 4]
    with pytest.raises(ValueError, match="at least one turn"):
        game.set_turns("discriminator", 0)
    with pytest.raises(UserError, match="unknown player 'nobody'"):
        game.set_turns("nobody", 2)


def test_a_game_with_changed_k_is_the_game_that_had_it_from_the_start() -> None:
    changed, given = plain_game(), plain_game(discriminator={"turns": 3})
    changed.set_turns("discriminator", 3)
    changed.play(3)
    given.play(3)
    states = [changed.state_dict(), given.state_dict()]
    for state in states:  # they differ in what was planned, and in nothing that was played
        assert state["players"]["discriminator"].pop("turns")["live"] == 3
    assert difference(*states) == []


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    ("first", "then", "records_anew"),
    [
        (
            OptimizerSpec("sgd", 0.1, momentum=lambda _: 0.5),
            {"learning_rate": 0.02, "momentum": lambda _: 0.9, "rate": lambda u: 0.9**u},
            False,
        ),
        (OptimizerSpec("adam", 0.01), {"learning_rate": 0.002}, False),
        (OptimizerSpec("adam", 0.01), {"betas": (0.8, 0.9)}, True),
    ],
    ids=["sgd", "adam", "betas"],
)
def test_an_optimiser_changed_on_the_way_plays_as_one_that_was_resumed_with_the_change(
    mode: Any,
    first: OptimizerSpec,
    then: dict[str, Any],
    records_anew: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tapes = record_on_tapes(monkeypatch)
    data, otherwise = vectors(point=(2,)), dataclasses.replace(first, **then)
    variant = Plain(8, discriminator={"optimizer": first})
    changed = toy_game(variant, data, engine=Engine(mode))
    changed.play(4)
    resumed = toy_game(Plain(8, discriminator={"optimizer": otherwise}), data)
    resumed.load_state_dict(changed.state_dict())
    changed.set_optimizer("discriminator", **then)
    recorded = len(tapes)
    for game in (changed, resumed):
        game.play(4)
    found = changed.variant.state_dict()
    for name, value in resumed.variant.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert len(tapes) - recorded == (records_anew and mode == "graph")
    with pytest.raises(ValueError, match="begin another game"):
        changed.set_optimizer("discriminator", kind="sgd")


def test_a_changed_k_is_resumed_unless_the_user_plans_another() -> None:
    changed = plain_game()
    changed.set_turns("discriminator", 3)
    resumed, replanned = plain_game(), plain_game(discriminator={"turns": 2})
    resumed.load_state_dict(changed.state_dict())
    replanned.load_state_dict(changed.state_dict())
    assert [game.seats[0].turns for game in (resumed, replanned)] == [3, 2]


def test_a_batch_that_the_workers_cannot_share_is_refused() -> None:
    from gan_core.engine.world import World

    with pytest.raises(UserError, match="--batch-size 8 cannot be shared by 3 workers"):
        toy_game(Plain(3), vectors(point=(2,)), world=World(0, 3))


def test_a_state_of_other_networks_players_or_stages_is_refused_in_one_line() -> None:
    state = plain_game().state_dict()
    wider = {**state, "networks": {**state["networks"], "generator.0.weight": torch.zeros(9, 2)}}
    with pytest.raises(
        UserError, match=r"generator\.0\.weight is \(9, 2\) there and \(7, 2\) here"
    ):
        plain_game().load_state_dict(wider)
    fewer = {n: v for n, v in state["networks"].items() if n != "generator.0.bias"}
    with pytest.raises(UserError, match=r"generator\.0\.bias is missing there and \(7,\) here"):
        plain_game().load_state_dict({**state, "networks": fewer})
    with pytest.raises(UserError, match="no stage 'other' of discriminator, generator"):
        plain_game().load_state_dict({**state, "stage": "other"})
