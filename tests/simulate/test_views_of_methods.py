"""Methods without a generic model, with an averaged one, and with models made for the scoring."""

from __future__ import annotations

from dataclasses import dataclass

from fedlt.models import LinearHead
from fedlt.strategy import StrategyTraits
from strategies import FedAvg

HERE = __file__


@dataclass(frozen=True)
class Alone(FedAvg):
    """Nothing is shared, and there is no generic model."""

    def build(self, model):
        super().build(model)
        model.set_group("", "personal")

    def generic(self, model, broadcast):
        return {}


@dataclass(frozen=True)
class OwnHead(FedAvg):
    """A personal head, which the generic model can only have the mean of."""

    def build(self, model):
        model.add_head("head", LinearHead(model.num_features, model.num_classes), group="personal")


@dataclass(frozen=True)
class Spare(FedAvg):
    """A personal head that the generic model does not read."""

    def build(self, model):
        super().build(model)
        model.add_head("own", LinearHead(model.num_features, model.num_classes), group="personal")

    def generic(self, model, broadcast):
        return {"head": model.heads["head"]}

    def objective(self, client, batch):
        features = client.model.features(batch.images)
        heads, plugin = client.model.heads, client.plugin
        own = plugin.loss(heads["own"](features.detach()), batch, client)
        return plugin.loss(heads["head"](features), batch, client) + own


@dataclass(frozen=True)
class Tuned(FedAvg):
    """A personal model made from the broadcast when it is scored."""

    epochs: int = 2

    @property
    def adapt_epochs(self):
        return self.epochs

    def adapt(self, client):
        client.train(self.objective, epochs=self.epochs)
        return {}


@dataclass(frozen=True)
class Keeps(FedAvg):
    """Every client keeps the model that it trained last."""

    traits = StrategyTraits(own_model="own/")

    def local_update(self, client):
        metrics = client.train(self.objective)
        return client.update(metrics, personal=client.snapshot(self.traits.own_model))


def spec(cls):
    return {"name": f"{HERE}:{cls.__name__}"}


def test_without_a_generic_model_there_is_no_generic_number(reference):
    outcome = reference(strategy=spec(Alone))
    result, row = outcome.result, outcome.rows[-1]
    assert result["generic_model"] == "none"
    assert row["generic/accuracy"] is None
    assert row["generic/few"] is None
    assert row["personal/generic"] is None
    assert row["personal/gain"] is None
    assert 0 < row["personal/accuracy"] <= 1
    assert row["personal/never"] == 0 or row["personal/clients"] == 5  # the others: first states


def test_clients_alone_are_what_one_client_alone_is(reference, lab):
    """Nobody hears of anybody: leaving out the other clients' rounds changes no state."""
    one = reference(strategy=spec(Alone), clients_per_round=5).personal[2]
    assert reference(strategy=spec(FedAvg), clients_per_round=5).result["generic_model"] == "shared"
    again = lab.run(strategy=spec(Alone), clients_per_round=5, rng_salt=0).personal[2]
    assert all(value.equal(again[name]) for name, value in one.items())


def test_a_generic_model_of_personal_parts_is_marked_as_an_average(reference):
    assert reference(strategy=spec(OwnHead)).result["generic_model"] == "average"
    assert reference(strategy=spec(Spare)).result["generic_model"] == "shared"
    assert reference(batchnorm="local").result["generic_model"] == "average"
    assert reference(strategy="fedloge").result["generic_model"] == "shared"


def test_a_model_made_for_the_scoring_equals_the_common_refresh(reference):
    """Tuning all layers for two epochs is what ``personal.refresh`` does to FedAvg's model."""
    tuned = reference(strategy=spec(Tuned)).rows
    refreshed = reference(personal={"refresh": {"scope": "all", "epochs": 2}}).rows
    assert tuned == refreshed
    assert tuned != reference().rows


def test_whole_models_are_scored_from_the_personal_state(reference):
    outcome = reference(strategy=spec(Keeps))
    assert outcome.result["generic_model"] == "shared"
    assert outcome.rows[-1]["personal/gain"] != 0
    assert outcome.groups["broadcast"].keys() == reference().groups["broadcast"].keys()
