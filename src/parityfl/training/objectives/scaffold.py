"""Control variates (Karimireddy et al., ICML 2020, algorithm 1, option II): y -= lr (grad F_k(y) - c_k + c).

After K steps the client's control variate becomes c_k - c + (w_t - y) / (K lr), the mean gradient that it has seen;
with clipping or weight decay that of what was descended along; with momentum it would be neither, and the
configuration refuses it. Both control variates begin at zero. The client keeps its change as the server
gets it, so that the server's variate stays the mean of the clients' where changes are rounded on the way.
"""

import torch

from parityfl.core.objectives import Scaffold
from parityfl.training.local import Learned, Net, Task, descend, minimise


@minimise.register
def _scaffold(objective: Scaffold, net: Net, task: Task) -> Learned:
    zero = torch.zeros_like(task.weights)
    control = zero if task.control is None else task.control
    own = zero if task.memory is None else task.memory
    shift = control - own
    weights, loss = descend(net, task, task.weights, lambda _, gradient: gradient.add_(shift))
    change = (task.weights - weights) / (task.steps * task.settings.lr) - control
    change = change.to(task.travels).to(change.dtype)
    return Learned(weights, loss, control=change, memory=own + change)
