"""The settings that a tuning tries."""

from regstream.manifest.schema import Manifest
from regstream.methods import make_method
from regstream.methods.search_space import Settings


def settings_to_try(manifest: Manifest) -> tuple[Settings, ...]:
    """The settings that the manifest's method names, after the manifest's own if they are none of these."""
    method = make_method(manifest.merge.method, manifest.merge.options)
    space = method.search_space()
    tried = [key for key in type(method.options).model_fields if any(key in settings for settings in space)]
    if not tried or method.options in [manifest.with_settings(settings).merge.options for settings in space]:
        return space
    given = [key for key in tried if key in method.options.model_fields_set]
    return ({key: getattr(method.options, key) for key in given or tried}, *space)
