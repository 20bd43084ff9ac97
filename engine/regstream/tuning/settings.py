"""The settings that a tuning tries."""

import json
from collections.abc import Sequence

from regstream.errors import ManifestError
from regstream.manifest.canonical import canonical_config
from regstream.manifest.keys import format_settings
from regstream.manifest.schema import Manifest
from regstream.methods import METHODS, make_method
from regstream.methods.search_space import Settings
from regstream.planning.plan import Plan
from regstream.planning.unused_rules import replaced_everywhere


def settings_to_try(manifest: Manifest) -> tuple[Settings, ...]:
    """The settings that the manifest's method names, after the manifest's own if they are none of these.

    Raises:
        ManifestError: there are none, or none makes a difference.
    """
    method = make_method(manifest.merge.method, manifest.merge.options)
    own, space = own_settings(manifest), method.search_space()
    settings = space if own is None else (own, *space)
    if not settings:
        others = ", ".join(name for name, other in METHODS.items() if other(other.Options()).search_space())
        raise ManifestError(
            f'{manifest.source}: the method "{method.name}" has no settings to tune; those of {others} can be tuned'
        )
    if _num_merges(manifest, settings) == 1:
        raise ManifestError(
            f"{manifest.source}: all {len(settings)} settings describe the same merge: every candidate has its own"
            " scale, which is not tuned; remove those that are to be"
        )
    return settings


def different_settings(merge: Plan, settings: Sequence[Settings]) -> tuple[Settings, ...]:
    """Those that differ in what rules do not give to every parameter.

    Raises:
        ManifestError: none does.
    """
    manifest = merge.manifest
    replaced = {setting.key for setting in replaced_everywhere(manifest, merge.base.architecture, merge.steps)}
    found: dict[str, Settings] = {}
    for one in settings:
        found.setdefault(format_settings({key: one[key] for key in one if key not in replaced}), one)
    if len(settings) > len(found) == 1:
        keys = ", ".join(sorted({key for one in settings for key in one} & replaced))
        raise ManifestError(
            f"{manifest.source}: all {len(settings)} settings describe the same merge: {keys} has no effect, since"
            " rules give it to every parameter that it decides; remove it there"
        )
    return tuple(found.values())


def own_settings(manifest: Manifest) -> Settings | None:
    """The manifest's own settings; None where they are among those that its method names, or nothing is tried."""
    method = make_method(manifest.merge.method, manifest.merge.options)
    space = method.search_space()
    tried = [key for key in type(method.options).model_fields if any(key in settings for settings in space)]
    options = manifest.merge.options
    if not tried or options in [manifest.with_settings(settings).merge.options for settings in space]:
        return None
    given = [key for key in tried if key in options.model_fields_set]
    return {key: getattr(options, key) for key in given or tried}


def fixed_options(manifest: Manifest) -> Settings:
    """The options that the manifest gives and that no setting changes."""
    method = make_method(manifest.merge.method, manifest.merge.options)
    tried = {key for settings in method.search_space() for key in settings}
    return manifest.merge.options.model_dump(exclude=tried, exclude_unset=True)


def _num_merges(manifest: Manifest, settings: Sequence[Settings]) -> int:
    """How many different merges some settings describe."""
    return len({json.dumps(canonical_config(manifest.with_settings(one)), sort_keys=True) for one in settings})
