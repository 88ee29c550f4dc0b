"""The specification of data and augmentation, and the static facts of each data set (no torch here)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import count, groupby
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from lthbench import registry
from lthbench.data.augmentations import AUGMENTATIONS
from lthbench.data.datasets import DATASETS, DataInfo
from lthbench.fault import Fault
from lthbench.names import unknown

__all__ = ["DATASETS", "Augment", "DataInfo", "DataSpec", "num_train_images", "spec_of_form"]


Share = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


class DataSpec(BaseModel):
    """A data set by name, and how its train split is divided.

    Attributes:
        name: a key of DATASETS.
        validation: images carved from train for choices: the same ones for every seed and recipe, stratified by class.
        num_train: train on only so many of the remaining images, chosen likewise (a smaller number's images
            are among a larger one's); None is all of them.
        class_list: imagenet100 with other classes than its own: the eight hex digits that `lthbench data prepare`
            prints for the list. `num_train` must then be given, as another list has another number of images.
        classes: only these classes, numbers and ranges as `[0-3, 8]`, numbered anew from 0 in ascending order; None
            is all. A network trained on some classes of a set can be transferred to others (Yosinski et al. 2014, arXiv
            1411.1792). Where classes differ in size (mnist, imagenet100), `num_train` must then be given.
        num_test: test on only so many images, chosen as `num_train`'s are; None is all of them.
        like: grey images stand in for those of another data set, which need not be there: they get its shape (pixels
            and channels repeated), its mean and deviation, and an output layer for its classes.
        image_size: resize the images to so many pixels a side, antialiased; padding and models follow. The mean and
            deviation stay those of the images as they are, as is usual (ImageNet's at every resolution).
        digest: of the content of an own data set (`lthbench data add`), by which two of one name are told apart; it is
            filled in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    validation: int = Field(default=0, ge=0)
    num_train: int | None = Field(default=None, ge=1)
    class_list: str | None = None
    classes: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        WithJsonSchema({"type": "array", "items": {"type": ["integer", "string"], "minimum": 0}}),
    ] = Field(default=None, min_length=2)
    num_test: int | None = Field(default=None, ge=1)
    like: str | None = None
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    digest: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_this_content(cls, values: Any) -> Any:
        """An own data set's digest, where none is given."""
        if not isinstance(values, dict) or values.get("digest") is not None:
            return values
        digest = _digest(values.get("name"), values.get("like"))
        return {**values, "digest": digest} if digest is not None else values

    @field_validator("name", "like")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in DATASETS:
            fault = unknown("data set", name, DATASETS)
            raise ValueError(fault if "did you mean" in fault else f"{fault}; own ones lie in the folder of --data")
        return name

    @field_validator("class_list")
    @classmethod
    def _digits(cls, digits: str | None) -> str | None:
        if digits is not None and not re.fullmatch("[0-9a-f]{8}", digits):
            raise ValueError("expected the eight hex digits that `lthbench data prepare` prints")
        return digits

    @field_validator("classes", mode="before")
    @classmethod
    def _spelt_out(cls, classes: Any) -> Any:
        """Ranges, as `0-49`, become their numbers."""
        if not isinstance(classes, list | tuple):
            return classes
        spelt_out: list[Any] = []
        for item in classes:
            if not isinstance(item, str):
                spelt_out.append(item)
                continue
            ends = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", item)
            if ends is None:
                raise ValueError(f"expected numbers of classes and ranges as 0-49, found '{item}'")
            first, last = int(ends[1]), int(ends[2])
            if first > last:
                raise ValueError(f"the range {item} holds no class; write {last}-{first}")
            spelt_out += range(first, last + 1)
            if len(spelt_out) > max(info.num_classes for info in DATASETS.values()):
                raise ValueError(f"names {len(spelt_out):,} classes and more; no data set has so many")
        return tuple(spelt_out)

    @field_validator("classes")
    @classmethod
    def _sorted(cls, classes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError(f"classes names one twice: {', '.join(map(str, classes))}")
        return tuple(sorted(classes)) if classes is not None else None

    @model_validator(mode="after")
    def _fits(self) -> DataSpec:
        if fault := _fault(self, self.info):
            raise ValueError(fault)
        return self

    @property
    def info(self) -> DataInfo:
        """The static facts of this data set, after the other fields are applied."""
        info = DATASETS[self.name]
        if self.classes is not None:
            num_train, num_test = (n * len(self.classes) // info.num_classes for n in (info.num_train, info.num_test))
            info = replace(info, num_classes=len(self.classes), num_train=num_train, num_test=num_test)
        if self.like is not None:
            own, info = info, DATASETS[self.like]
            info = replace(info, kind=own.kind, folder=own.folder, num_train=own.num_train, num_test=own.num_test)
        if self.image_size is not None:
            stored = round(info.stored_side * self.image_size / info.image_shape[1])
            shape = (info.image_shape[0], self.image_size, self.image_size)
            info = replace(info, image_shape=shape, stored_side=stored)
        return replace(info, num_test=self.num_test) if self.num_test else info

    @property
    def num_labels(self) -> int:
        """The number of classes with images: fewer than the output layer has if they stand in for others (`like`)."""
        return len(self.classes) if self.classes is not None else DATASETS[self.name].num_classes

    @property
    def title(self) -> str:
        """The data set's name, with another size or choice of classes: `cifar10 at 16 px`, `cifar100 [0-49]`."""
        name = self.name if self.image_size is None else f"{self.name} at {self.image_size} px"
        if self.classes is None:
            return name
        position = count()
        runs = [list(run) for _, run in groupby(self.classes, key=lambda label: label - next(position))]
        texts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else " ".join(map(str, run)) for run in runs]
        return f"{name} [{' '.join(texts)}]"

    @property
    def form(self) -> str:
        """The name by which the time is known that its images take: `cifar10`, `cifar10@16`."""
        return (self.like or self.name) + (f"@{self.image_size}" if self.image_size is not None else "")

    def has_classes_of(self, other: DataSpec) -> bool:
        """Whether an output layer for the other's classes fits these."""
        return all(
            getattr(self, field) == getattr(other, field)
            for field in ("name", "class_list", "classes", "like", "digest")
        )


class Augment(BaseModel):
    """Random changes to each training image; each is off by default and has its own random stream.

    They are applied in this order, that of torchvision's reference recipes.

    Attributes:
        crop: pad with so many black pixels on each side, then crop the original size at random.
        resized_crop: crop between these shares of the area, aspect 3/4 to 4/3, and resize (instead of `crop`).
        flip: mirror left to right with probability 1/2.
        autoaugment: a learned policy of two operations per image (Cubuk et al. 2019).
        randaugment: (operations per image, magnitude of 0 to 30) (Cubuk et al. 2020).
        colour_jitter: largest change of (brightness, contrast, saturation, hue).
        erase: probability of overwriting a random rectangle with the mean colour (Zhong et al. 2020).
        mixup, cutmix: alpha of the Beta distribution of the weight of a second image (Zhang et al. 2018, Yun et al.
            2019); with both, each batch takes one of them.
        mix_probability: how often a batch is mixed at all.
        own: those that plugins register, in this order, after the others that change an image and before `erase`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: int = Field(default=0, ge=0)
    resized_crop: tuple[Share, Share] | None = None
    flip: bool = False
    autoaugment: Literal["imagenet", "cifar10", "svhn"] | None = None
    randaugment: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=0, le=30)]] | None = None
    colour_jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]] | None = None
    erase: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    mix_probability: float = Field(default=1.0, gt=0, le=1)
    own: tuple[str, ...] = ()

    @field_validator("own")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in AUGMENTATIONS:
                raise ValueError(registry.unknown_name("augmentation", name, AUGMENTATIONS))
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Augment:
        if self.resized_crop and self.crop:
            raise ValueError("crop and resized_crop are both given; choose one")
        if self.resized_crop and self.resized_crop[0] > self.resized_crop[1]:
            raise ValueError(f"resized_crop is {self.resized_crop}; expected the smaller share first")
        if self.autoaugment and self.randaugment:
            raise ValueError("autoaugment and randaugment are both given; choose one")
        return self

    def faults(self, data: DataSpec) -> Iterator[Fault]:
        """Which of them the images of a data set rule out."""
        channels, height, width = data.info.image_shape
        if self.crop >= min(height, width):
            yield Fault(
                ("crop",),
                f"with {self.crop} pixels around images of {height} x {width} a crop may hold nothing of them; "
                f"give less than {min(height, width)}",
            )
        for name in ("autoaugment", "randaugment", "colour_jitter") if channels == 1 else ():
            if getattr(self, name) is not None:
                yield Fault((name,), f"changes colours, and the images of {data.title} are grey; leave it out")

    @property
    def active(self) -> bool:
        """Whether a batch needs random numbers at all."""
        return self != Augment()

    @property
    def moves_pixels_only(self) -> bool:
        """Whether only positions of stored pixels change: crop, flip or nothing."""
        return self == Augment(crop=self.crop, flip=self.flip)

    @property
    def mixes(self) -> bool:
        """Whether labels become probabilities of two classes."""
        return self.mixup > 0 or self.cutmix > 0


def spec_of_form(form: str) -> DataSpec:
    """A data set whose images have a form (`DataSpec.form`); ValueError where there is none."""
    name, at, size = form.partition("@")
    return DataSpec(name=name, image_size=int(size) if at else None)


def _digest(*names: Any) -> str | None:
    """The digests of own data sets among some names."""
    found = [DATASETS[name].digest for name in names if isinstance(name, str) and name in DATASETS]
    return "+".join(filter(None, found)) or None


def num_train_images(spec: DataSpec) -> int:
    """Return how many images an epoch of `spec` has; the data need not be present."""
    return spec.num_train or spec.info.num_train - spec.validation


@lru_cache
def _fault(spec: DataSpec, info: DataInfo) -> str | None:
    """What in a specification contradicts the rest of it, or the data set."""
    if spec.digest != (here := _digest(spec.name, spec.like)):
        return (
            f"{spec.title} was a data set of content {spec.digest}, and in this data folder it is {here}; add that one "
            "again, or leave out digest"
        )
    shown = spec.like or spec.name
    if spec.image_size is not None and DATASETS[shown].image_shape[1:] == (spec.image_size, spec.image_size):
        return f"{shown} has images of {spec.image_size} pixels; leave out image_size"
    if spec.class_list and spec.name != "imagenet100":
        return f"{spec.name} has no choice of classes; leave out class_list"
    if spec.class_list and spec.num_train is None:
        return "num_train must be given with class_list"
    if spec.classes is not None:
        num_classes = DATASETS[spec.name].num_classes
        if spec.classes[-1] >= num_classes:
            return f"classes has {spec.classes[-1]}, but those of {spec.name} are 0 to {num_classes - 1}"
        if len(spec.classes) == num_classes:
            return f"classes has every class of {spec.name}; leave it out"
        if not info.balanced and spec.num_train is None:
            return f"num_train must be given with classes of {spec.name}, which differ in size"
    wanted = spec.validation + (spec.num_train or 1)
    known = not spec.class_list and (spec.classes is None or info.balanced)
    if known and wanted > info.num_train:
        return (
            f"{spec.title} has {info.num_train} train images, but validation ({spec.validation}) and "
            f"num_train ({spec.num_train or 'at least 1'}) need {wanted}"
        )
    num_test = spec.model_copy(update={"num_test": None}).info.num_test
    if known and (spec.num_test or 0) > num_test:
        return f"{spec.title} has {num_test} test images, but num_test is {spec.num_test}"
    if spec.like and DATASETS[spec.name].image_shape[0] != 1:
        return f"{spec.name} has colours; only grey images can stand in for others by `like`"
    return None
