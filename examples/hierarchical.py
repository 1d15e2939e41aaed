"""
Hierarchical sampling
=====================

A mux of muxes.

Two populations of streams give upper-case and lower-case letters. A StochasticMux for each population keeps
a few of its streams active. A ShuffledMux over both fixes how often each population is drawn. Prints the
letters, and the share of upper-case letters.
"""

import matplotlib.pyplot as plt
import numpy as np

import pescador


def letter(c):
    """Yield one letter, forever."""
    while True:
        yield c


def upper_share(letters):
    """Return the share of upper-case letters."""
    return sum(c.isupper() for c in letters) / len(letters)


np.random.seed(0)
pop1 = [pescador.Streamer(letter, c) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
pop2 = [pescador.Streamer(letter, c) for c in "abcdefghijklmnopqrstuvwxyz"]

# 3 upper-case letters at a time, each replaced after 5 samples on average
mux1 = pescador.StochasticMux(pop1, 3, 5)

# 5 lower-case letters at a time, each replaced after 2 samples on average
mux2 = pescador.StochasticMux(pop2, 5, 2)

hier_mux = pescador.ShuffledMux([mux1, mux2])
print("equal: ", "".join(hier_mux(max_iter=80)))

weight_mux = pescador.ShuffledMux([mux1, mux2], weights=[0.75, 0.25])
print("3 to 1:", "".join(weight_mux(max_iter=80)))

print("\nshare of upper-case letters among 20000")
for name, mux in {"equal": hier_mux, "3 to 1": weight_mux}.items():
    letters = list(mux(max_iter=20000))
    print(f"{name + ':':7} {upper_share(letters):.3f}")
    shares = np.cumsum([c.isupper() for c in letters[:1000]]) / np.arange(1, 1001)
    plt.plot(shares, label=name)

plt.ylim(0, 1)
plt.xlabel("number of samples")
plt.ylabel("share of upper-case letters so far")
plt.legend()
plt.show()
