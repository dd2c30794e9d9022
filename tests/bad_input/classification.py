"""Settings that only classification has: how batches are mixed, the loss, and its teacher."""

from bad_input.case import CLASSIFICATION
from bad_input.settings import settings

CASES = {
    **settings(
        CLASSIFICATION,
        ("augment.mixup=-1", "augment.mixup: -1.0 is out of range: at least 0.0 and at most 100.0"),
        ("augment.cutmix=.inf", "augment.cutmix: inf is not a finite number"),
        ("augment.cutmix_minmax=[0.9,0.1]", "augment.cutmix_minmax: [0.9, 0.1] is not in rising order"),
        ("augment.cutmix_minmax=0.5", "augment.cutmix_minmax: 0.5 is not a list"),
        ("augment.mixup_probability=1.1", "augment.mixup_probability: 1.1 is out of range"),
        ("augment.mixup_switch_probability=-0.1", "augment.mixup_switch_probability: -0.1 is out of range"),
        ("augment.mixup_off_epoch=-1", "augment.mixup_off_epoch: -1 is out of range: at least 0"),
        ("loss.name=cross_entrpy", "loss.name: 'cross_entrpy' is not one of cross_entropy, binary_cross_entropy (did"),
        ("loss.class_weights=[1,2,3]", "loss.class_weights: has 3 numbers, network.num_classes is 2"),
        ("loss.class_weights=[1,0]", "loss.class_weights: 0.0 is out of range: at least 1e-06"),
        ("loss.class_weights=balance", "loss.class_weights: 'balance' is not one of balanced, a list (did you mean"),
        ("loss.class_weights=2", "loss.class_weights: 2 is not one of balanced, a list"),
        ("loss.teacher=no.ckpt", "error: loss.teacher: no.ckpt: no such file, expected a weights file"),
        ("loss.teacher=classes", "error: loss.teacher: classes: is a folder, expected a weights file"),
        ("loss.teacher=classification.yaml", "error: loss.teacher: classification.yaml: "),
        ("loss.teacher_weight=1.5", "loss.teacher_weight: 1.5 is out of range: at least 0.0 and at most 1.0"),
        ("loss.temperature=0", "loss.temperature: 0.0 is out of range: at least 0.1 and at most 100.0"),
    ),
}
