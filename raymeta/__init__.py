"""Meta-learning on Ray: exact meta-gradients, the same result on any number of workers, nothing lost.

Public names resolve on first use, so that `import raymeta` imports neither torch, nor ray, nor torchvision. In the
same way, `raymeta.tasks` has the task sets and `raymeta.models` the models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raymeta.system.public_names import resolved

if TYPE_CHECKING:
    from raymeta import options as options
    from raymeta.adaptation.outcome import Adaptation as Adaptation
    from raymeta.adaptation.problem import Learned as Learned
    from raymeta.adaptation.problem import Part as Part
    from raymeta.adaptation.problem import Phase as Phase
    from raymeta.adaptation.problem import Problem as Problem
    from raymeta.algorithms.anil import ANIL as ANIL
    from raymeta.algorithms.base import Algorithm as Algorithm
    from raymeta.algorithms.base import DescentAlgorithm as DescentAlgorithm
    from raymeta.algorithms.base import ScoredAlgorithm as ScoredAlgorithm
    from raymeta.algorithms.base import TrainedModel as TrainedModel
    from raymeta.algorithms.baseline import Baseline as Baseline
    from raymeta.algorithms.cavia import CAVIA as CAVIA
    from raymeta.algorithms.cnaps import CNAPs as CNAPs
    from raymeta.algorithms.cnp import CNP as CNP
    from raymeta.algorithms.dada import DADA as DADA
    from raymeta.algorithms.darts import DARTS as DARTS
    from raymeta.algorithms.enas import ENAS as ENAS
    from raymeta.algorithms.erm import ERM as ERM
    from raymeta.algorithms.hsml import HSML as HSML
    from raymeta.algorithms.imaml import IMAML as IMAML
    from raymeta.algorithms.joint import JointTraining as JointTraining
    from raymeta.algorithms.l2l import L2L as L2L
    from raymeta.algorithms.l2rw import L2RW as L2RW
    from raymeta.algorithms.learned_mlp import LearnedMLP as LearnedMLP
    from raymeta.algorithms.leo import LEO as LEO
    from raymeta.algorithms.logistic import Logistic as Logistic
    from raymeta.algorithms.maml import MAML as MAML
    from raymeta.algorithms.maml_pp import MAMLPlusPlus as MAMLPlusPlus
    from raymeta.algorithms.maml_rl import MAMLRL as MAMLRL
    from raymeta.algorithms.mann import MANN as MANN
    from raymeta.algorithms.matching import MatchingNet as MatchingNet
    from raymeta.algorithms.meta_curvature import MetaCurvature as MetaCurvature
    from raymeta.algorithms.meta_lstm import MetaLSTM as MetaLSTM
    from raymeta.algorithms.meta_sgd import MetaSGD as MetaSGD
    from raymeta.algorithms.meta_weight_net import MetaWeightNet as MetaWeightNet
    from raymeta.algorithms.metadistil import MetaDistil as MetaDistil
    from raymeta.algorithms.metaoptnet import MetaOptNet as MetaOptNet
    from raymeta.algorithms.mkd import MKD as MKD
    from raymeta.algorithms.mldg import MLDG as MLDG
    from raymeta.algorithms.nas_evolution import RegularizedEvolution as RegularizedEvolution
    from raymeta.algorithms.nas_reinforce import Reinforce as Reinforce
    from raymeta.algorithms.neural_process import NP as NP
    from raymeta.algorithms.pfn import PFN as PFN
    from raymeta.algorithms.plain import Plain as Plain
    from raymeta.algorithms.protonet import ProtoNet as ProtoNet
    from raymeta.algorithms.r2d2 import R2D2 as R2D2
    from raymeta.algorithms.relation import RelationNet as RelationNet
    from raymeta.algorithms.reptile import Reptile as Reptile
    from raymeta.algorithms.siamese import Siamese as Siamese
    from raymeta.algorithms.snail import SNAIL as SNAIL
    from raymeta.api.evaluate import meta_test as meta_test
    from raymeta.api.gradient import meta_gradient as meta_gradient
    from raymeta.api.load import RunView as RunView
    from raymeta.api.load import SweepView as SweepView
    from raymeta.api.load import load_run as load_run
    from raymeta.api.train import meta_train as meta_train
    from raymeta.errors import RaymetaError as RaymetaError
    from raymeta.keys import TaskKey as TaskKey
    from raymeta.models.base import ModelSpec as ModelSpec
    from raymeta.models.layers.beside import Beside as Beside
    from raymeta.tasks.base import TaskSet as TaskSet
    from raymeta.tasks.episodes import Episode as Episode
    from raymeta.tasks.episodes import Examples as Examples
    from raymeta.tasks.episodes import Size as Size
    from raymeta.trackers.scores import Score as Score
    from raymeta.tree import params_sha256 as params_sha256
    from raymeta.use.adapted import Adapted as Adapted
    from raymeta.use.adapted import adapt_to as adapt_to
    from raymeta.use.folder import load_adapted as load_adapted
    from raymeta.use.opening import from_pretrained as from_pretrained
    from raymeta.use.optimizer import load_optimizer as load_optimizer
    from raymeta.use.pretrained import Pretrained as Pretrained
    from raymeta.use.trained import TrainedClassifier as TrainedClassifier
    from raymeta.use.trained import classifier_of as classifier_of

__version__ = "0.1.0"

_HOMES = {
    "ANIL": "algorithms.anil",
    "CAVIA": "algorithms.cavia",
    "CNP": "algorithms.cnp",
    "DADA": "algorithms.dada",
    "DARTS": "algorithms.darts",
    "ENAS": "algorithms.enas",
    "ERM": "algorithms.erm",
    "HSML": "algorithms.hsml",
    "IMAML": "algorithms.imaml",
    "L2L": "algorithms.l2l",
    "L2RW": "algorithms.l2rw",
    "LEO": "algorithms.leo",
    "MAML": "algorithms.maml",
    "MAMLRL": "algorithms.maml_rl",
    "MANN": "algorithms.mann",
    "MKD": "algorithms.mkd",
    "MLDG": "algorithms.mldg",
    "NP": "algorithms.neural_process",
    "PFN": "algorithms.pfn",
    "R2D2": "algorithms.r2d2",
    "SNAIL": "algorithms.snail",
    "Adaptation": "adaptation.outcome",
    "Adapted": "use.adapted",
    "Algorithm": "algorithms.base",
    "Baseline": "algorithms.baseline",
    "Beside": "models.layers.beside",
    "CNAPs": "algorithms.cnaps",
    "DescentAlgorithm": "algorithms.base",
    "Episode": "tasks.episodes",
    "Examples": "tasks.episodes",
    "JointTraining": "algorithms.joint",
    "Learned": "adaptation.problem",
    "LearnedMLP": "algorithms.learned_mlp",
    "Logistic": "algorithms.logistic",
    "MAMLPlusPlus": "algorithms.maml_pp",
    "MatchingNet": "algorithms.matching",
    "MetaCurvature": "algorithms.meta_curvature",
    "MetaDistil": "algorithms.metadistil",
    "MetaLSTM": "algorithms.meta_lstm",
    "MetaOptNet": "algorithms.metaoptnet",
    "MetaSGD": "algorithms.meta_sgd",
    "MetaWeightNet": "algorithms.meta_weight_net",
    "ModelSpec": "models.base",
    "Part": "adaptation.problem",
    "Phase": "adaptation.problem",
    "Plain": "algorithms.plain",
    "Pretrained": "use.pretrained",
    "Problem": "adaptation.problem",
    "ProtoNet": "algorithms.protonet",
    "RaymetaError": "errors",
    "RegularizedEvolution": "algorithms.nas_evolution",
    "Reinforce": "algorithms.nas_reinforce",
    "RelationNet": "algorithms.relation",
    "Reptile": "algorithms.reptile",
    "RunView": "api.load",
    "Score": "trackers.scores",
    "ScoredAlgorithm": "algorithms.base",
    "Siamese": "algorithms.siamese",
    "Size": "tasks.episodes",
    "SweepView": "api.load",
    "TaskKey": "keys",
    "TaskSet": "tasks.base",
    "TrainedClassifier": "use.trained",
    "TrainedModel": "algorithms.base",
    "adapt_to": "use.adapted",
    "classifier_of": "use.trained",
    "from_pretrained": "use.opening",
    "load_adapted": "use.folder",
    "load_optimizer": "use.optimizer",
    "load_run": "api.load",
    "meta_gradient": "api.gradient",
    "meta_test": "api.evaluate",
    "meta_train": "api.train",
    "options": "options",
    "params_sha256": "tree",
}
"""Every public name, and the module that has it; a test holds the imports for type checkers against it."""
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    return resolved(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
