"""Where the publishers keep their data sets: addresses, sizes, checksums and the folders that they unpack to."""

from __future__ import annotations

import attrs


@attrs.frozen
class RemoteFile:
    """One file of a publisher.

    Args:
        urls: the publisher's address, then mirrors with the same bytes.
        size: bytes; None where it is not known.
        checksum: "sha256:..." or "md5:...", 64 or 32 hexadecimal digits; None where none is known.
        into: folder that it is unpacked or copied into, below the folder of all data sets; "" is that one itself.
    """

    urls: tuple[str, ...]
    size: int | None
    checksum: str | None
    into: str = ""

    @property
    def name(self) -> str:
        """Name of the file.

        Example:
            >>> RemoteFile(("https://example.org/a/b.tgz",), None, None).name
            'b.tgz'
        """
        return self.urls[0].rsplit("/", 1)[-1]


@attrs.frozen
class Source:
    """What makes up a data set, and the folder that a loader reads once all of it is there.

    Args:
        folder: below the folder of all data sets.
        files: to be fetched; none where the publisher has no public download.
        note: what a user must know to get it.
    """

    folder: str
    files: tuple[RemoteFile, ...]
    note: str = ""


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_MNIST = (
    "http://yann.lecun.com/exdb/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_FASHION = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",)
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_STANFORD = "https://ai.stanford.edu/~jkrause"


def _idx(bases: tuple[str, ...], folder: str, files: dict[str, tuple[int, str]]) -> tuple[RemoteFile, ...]:
    """The four idx files of MNIST and of those that took over its layout."""
    return tuple(
        RemoteFile(tuple(f"{base}/{name}.gz" for base in bases), size, f"sha256:{digest}", folder)
        for name, (size, digest) in files.items()
    )


# Checksums as widely used loaders state them: SHA256 by tensorflow-datasets, and by Keras for the CIFAR archives; MD5
# where no SHA256 is in wide use: Tiny ImageNet (Avalanche) and FGVC-Aircraft (torchvision for R).
SOURCES: dict[str, Source] = {
    "cifar10": Source(
        "cifar-10-batches-py",
        (
            RemoteFile(
                (f"{_TORONTO}/cifar-10-python.tar.gz",),
                170498071,
                "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
        ),
    ),
    "cifar100": Source(
        "cifar-100-python",
        (
            RemoteFile(
                (f"{_TORONTO}/cifar-100-python.tar.gz",),
                169001437,
                "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
    ),
    "mnist": Source(
        "mnist",
        _idx(
            _MNIST,
            "mnist",
            {
                "train-images-idx3-ubyte": (
                    9912422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                "train-labels-idx1-ubyte": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                "t10k-images-idx3-ubyte": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                "t10k-labels-idx1-ubyte": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            },
        ),
    ),
    "fashion_mnist": Source(
        "fashion-mnist",
        _idx(
            _FASHION,
            "fashion-mnist",
            {
                "train-images-idx3-ubyte": (
                    26421880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                "train-labels-idx1-ubyte": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                "t10k-images-idx3-ubyte": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                "t10k-labels-idx1-ubyte": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            },
        ),
    ),
    "imagenet": Source(
        "imagenet",
        (),
        "ImageNet has no public download: register at https://image-net.org, agree to its terms, fetch "
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and unpack them to train/<wnid>/ and val/",
    ),
    "imagenette": Source(
        "imagenette2",
        (
            RemoteFile(
                ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz",),
                1557161267,
                "sha256:6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd",
            ),
        ),
    ),
    "tiny_imagenet": Source(
        "tiny-imagenet-200",
        (
            RemoteFile(
                ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
                248100043,
                "md5:90528d7ca1a48142e341f4ef8d21d0de",
            ),
        ),
    ),
    "flowers102": Source(
        "flowers-102",
        (
            RemoteFile(
                (f"{_OXFORD}/flowers/102/102flowers.tgz",),
                344862509,
                "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
                "flowers-102",
            ),
            RemoteFile(
                (f"{_OXFORD}/flowers/102/imagelabels.mat",),
                502,
                "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
                "flowers-102",
            ),
            RemoteFile(
                (f"{_OXFORD}/flowers/102/setid.mat",),
                14989,
                "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
                "flowers-102",
            ),
        ),
    ),
    "oxford_iiit_pet": Source(
        "oxford-iiit-pet",
        (
            RemoteFile(
                (f"{_OXFORD}/pets/data/images.tar.gz",),
                791918971,
                "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                "oxford-iiit-pet",
            ),
            RemoteFile(
                (f"{_OXFORD}/pets/data/annotations.tar.gz",),
                19173078,
                "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
                "oxford-iiit-pet",
            ),
        ),
    ),
    "stanford_cars": Source(
        "stanford_cars",
        (
            RemoteFile(
                (f"{_STANFORD}/car196/cars_train.tgz",),
                979269282,
                "sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
                "stanford_cars",
            ),
            RemoteFile(
                (f"{_STANFORD}/car196/cars_test.tgz",),
                977350468,
                "sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
                "stanford_cars",
            ),
            RemoteFile(
                (f"{_STANFORD}/cars/car_devkit.tgz",),
                330960,
                "sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
                "stanford_cars",
            ),
            RemoteFile(
                (f"{_STANFORD}/car196/cars_test_annos_withlabels.mat",),
                185758,
                "sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
                "stanford_cars",
            ),
        ),
        "the publisher's server no longer hands out Stanford Cars; where you have its files from elsewhere",
    ),
    "fgvc_aircraft": Source(
        "fgvc-aircraft-2013b",
        (
            RemoteFile(
                (f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
                2753340328,
                "md5:d4acdd33327262359767eeaa97a4f732",
            ),
        ),
    ),
    "food101": Source(
        "food-101",
        (
            RemoteFile(
                ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",),
                4996278331,
                "sha256:d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            ),
        ),
    ),
}
