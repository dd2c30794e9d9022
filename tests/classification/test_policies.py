"""The setting `augment.policy`: which policy a string means, and what is no policy."""

import dataclasses

import pytest
from classification.policy_cases import GREY
from helpers import PROJECT

from src.classification.auto_augment import POLICIES as PAIRS
from src.classification.auto_augment import AutoAugment
from src.classification.policies import build_policy
from src.classification.rand_augment import RandAugment
from src.classification.settings import AugmentSettings
from src.classification.trivial_augment import TrivialAugment
from src.config import load_config
from src.errors import UserError
from src.tasks import SCHEMAS, create_task

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("rand-m9-mstd0.5-inc1", RandAugment),
        ("original", AutoAugment),
        ("originalr", AutoAugment),
        ("v0-mstd0.5", AutoAugment),
        ("v0r", AutoAugment),
        ("trivial", TrivialAugment),
    ],
)
def test_the_name_chooses_the_policy(text, kind):
    policy = build_policy(text, GREY, "random")
    assert type(policy) is kind and (policy.fill, policy.interpolation) == (GREY, "random")
    config = load_config(CONFIG, SCHEMAS, [("augment.policy", text, "test")])
    built = create_task(config).build_transform(training=True).policy
    assert type(built) is kind and (built.fill, built.interpolation) == (GREY, config.data.interpolation)
    if kind is AutoAugment:
        assert built.pairs is PAIRS[text.partition("-")[0]]
    with pytest.raises(UserError, match=r"^color_jitter: must be 0 with a policy, not 0.4$"):
        dataclasses.replace(config.augment, color_jitter=0.4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': begins with '', not with rand, original, originalr, v0, v0r, trivial"),
        ("augmix-m5", "'augmix-m5': begins with 'augmix', not with rand, original, "),
        ("3a", "'3a': begins with '3a', not with rand, "),
        ("orginal", "v0r, trivial (did you mean 'original'?)"),
        ("Rand-m9", "begins with 'Rand', not with rand"),
        ("original-m9", "'original-m9': part 'm9' is none of mstdX standard deviation of the magnitude, or inf"),
        ("v0-mstd1-mstd2", "part 'mstd2' says again what another part says"),
        ("trivial-m9", "'trivial-m9': trivial has no parts"),
        ("trivial-", "'trivial-': trivial has no parts"),
    ],
)
def test_a_wrong_policy_is_named(text, message):
    with pytest.raises(UserError) as error:
        AugmentSettings(policy=text)
    assert str(error.value).startswith("policy: ") and message in str(error.value)
