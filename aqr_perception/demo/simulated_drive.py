"""The drive that the demo plays: simulated once, kept as a bag."""

from dataclasses import dataclass
from pathlib import Path

from aqr_perception.data.sources.simulated import VERSION
from aqr_perception.simulator.bag import write_bag
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.simulator.rig import nuscenes_rig


@dataclass(frozen=True)
class DemoDrive:
    """Which drive.

    Attributes:
        seed: of the scene. Trainings start at seed 10 000, evaluations use 0 to 199: the demo's is in neither.
        seconds: its length.
        rate: sweeps, and pictures of each camera, a second.
        picture: width and height in pixels: more than the small model's, for people, but less than twice as many, or
            the node would decode them at half their size.
    """

    seed: int = 5005
    seconds: float = 20.0
    rate: float = 5.0
    picture: tuple[int, int] = (528, 192)

    @property
    def file_name(self) -> str:
        """Name of its bag, another one for every drive and version of the simulated world."""
        width, height = self.picture
        return f"drive_v{VERSION}_{self.seed}_{self.seconds:g}s_{self.rate:g}hz_{width}x{height}.mcap"

    def bag(self, folder: Path, progress: bool = True) -> Path:
        """Return its bag in a folder; simulate it where it is not there yet.

        Raises:
            BagError: see `BagWriter`.
        """
        path = folder / self.file_name
        if not path.exists():
            drive = draw_drive(self.seed, self.seconds, nuscenes_rig(self.picture))
            write_bag(drive, path, self.seconds, rate=self.rate, progress=progress)
        return path
