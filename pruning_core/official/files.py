"""Files in the official forms: a configuration of How Sparse, a parameter file of SiPP and PFP."""

from pathlib import Path

from pruning_core.errors import BadInput
from pruning_core.official.catalogue import Official, of_configuration, of_parameter_file
from pruning_core.papers.how_sparse.official import configuration_of, is_configuration
from pruning_core.papers.sipp_pfp.config_file import is_parameter_file, read_parameter_file
from pruning_core.records.values import read_document


def settings_of_file(path: Path) -> list[Official]:
    """The settings that a file describes: one, or one a customization. Raises BadInput or UnknownName, naming the key that
    is wrong, and BadInput for a file in neither form."""
    document = read_document(path)
    if is_configuration(document):
        entry = configuration_of(document, str(path))
        return [of_configuration(path.stem, entry, f"python main.py --config {path}")]
    if is_parameter_file(document):
        command = f"python -m experiment.main {path}"
        return [of_parameter_file(name, entry, command) for name, entry in read_parameter_file(path).items()]
    raise BadInput(
        f"{path} is neither a configuration of How Sparse (model, dataset, lr, epoch, ...) nor a parameter file of SiPP and "
        "PFP (network, training, experiments)."
    )
