"""The words of stories: all that can be drawn, and the people and things made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from mmavlm.movies.labels import Look, Mood

Location = Literal[
    "school", "prison", "office", "hotel", "restaurant", "airport", "kitchen", "library",
    "garden", "museum", "station", "workshop", "hospital", "theatre",
]  # fmt: skip
ThingName = Literal["cup", "ball", "gift", "book", "star", "key"]
ThingColour = Literal["red", "green", "blue", "purple", "golden"]
Clothes = Literal["red", "yellow", "green", "blue", "purple", "white"]
Gender = Literal["man", "woman"]
Hat = Literal["top hat", "cap", "beanie", "crown"]
Hair = Literal["black", "brown", "blond", "ginger"]
Decor = Literal["clock", "painting", "mirror", "poster", "plant", "lamp", "cat", "bin"]
# MovieLLM keeps to verbs that an image shows; these are the ones that the drawings show.
Action = Literal["stand", "sit", "point", "talk", "ask", "take", "put", "give"]
Expression = Literal["neutral", "happy", "sad", "angry"]
Keyword = Literal["fairground", "postcard", "comic", "moonlight", "daylight", "velvet"]

# A style's light and film stock; those that take the colours away are left out, since questions
# tell people by their colours.
STYLES: Mapping[str, tuple[Mood, Look]] = {
    "fairground": ("merry", "vivid"),
    "postcard": ("tender", "vivid"),
    "comic": ("fierce", "vivid"),
    "moonlight": ("eerie", "wide"),
    "daylight": ("merry", "wide"),
    "velvet": ("tender", "wide"),
}
LOCATIONS: tuple[Location, ...] = get_args(Location)
DECOR: tuple[Decor, ...] = get_args(Decor)


class Words(BaseModel):
    """Plain data that does not change and has no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Style(Words):
    """The look of a whole film: one keyword, and the words that describe it."""

    keyword: Keyword
    tone: tuple[str, ...] = Field(min_length=1)


class Person(Words):
    """Somebody who looks the same through the whole film; told from others by the clothes."""

    name: str = Field(min_length=1)
    gender: Gender
    clothes: Clothes
    hat: Hat | None
    hair: Hair

    @property
    def phrase(self) -> str:
        """How questions name the person: `the woman in the green dress`."""
        return f"the {self.gender} in the {self.clothes} {self._garment}"

    @property
    def appearance(self) -> str:
        """The whole look, as MovieLLM puts it in place of the name."""
        hat = f" and a {self.hat}" if self.hat else ""
        return f"a {self.gender} with {self.hair} hair in a {self.clothes} {self._garment}{hat}"

    @property
    def _garment(self) -> str:
        return "dress" if self.gender == "woman" else "shirt"


class Thing(Words):
    """A thing that can be taken, put down and given."""

    name: ThingName
    colour: ThingColour

    @property
    def phrase(self) -> str:
        """How questions name the thing: `the red cup`."""
        return f"the {self.colour} {self.name}"
