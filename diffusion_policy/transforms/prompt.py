"""What the policy is told to do, in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import Formatter

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import Field, TaskSpec
from diffusion_policy.transforms.transform import Transform
from diffusion_policy.util.errors import UserError


@dataclass(frozen=True)
class Prompt(Transform):
    """Adds a text observation.

    Attributes:
        text: what it says. ``{key}`` stands for the text observation of that name, such as the
            task of the episode.
        key: name of the new observation; that of a text already there replaces it.
    """

    text: str
    key: str = "prompt"

    def __post_init__(self) -> None:
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise UserError(
                f"Prompt.text is {self.text!r} ({error}); write {{{{ and }}}} for braces"
            ) from None
        if any(form or conversion for _, _, form, conversion in parts):
            raise UserError(f"Prompt.text is {self.text!r}; use {{key}} without a format")

    def spec(self, spec: TaskSpec) -> TaskSpec:
        texts = [key for key, field in spec.obs.items() if field.type == "text"]
        for name in self._names:
            if name not in texts:
                raise UserError(
                    f"Prompt.text asks for the text observation {name!r}, of which there are "
                    f"{', '.join(texts) or 'none'}; correct it, or add it to shape_meta.obs"
                )
        if self.key in spec.fields and self.key not in texts:
            raise UserError(f"Prompt.key is {self.key!r}, which is no text; use another name")
        field = Field((), type="text", modality="TEXT")
        return replace(spec, obs={**spec.obs, self.key: field})

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        obs = batch["obs"]
        columns = [obs[name] for name in self._names]
        # Where there are no observations, as without images, the action tells how many rows.
        n_rows = len(next(iter(obs.values()), batch.get("action_is_pad", ())))
        rows = zip(*columns, strict=True) if columns else [()] * n_rows
        prompts = [self.text.format_map(dict(zip(self._names, row, strict=True))) for row in rows]
        return {**batch, "obs": {**obs, self.key: prompts}}

    @property
    def _names(self) -> list[str]:
        return [name for _, name, _, _ in Formatter().parse(self.text) if name is not None]
