"""Every measured threshold by which the engine chooses, with what was measured; never a time of the run itself.

So the same network, mask and instruction set go the same way each time, and give the same bits.
"""

# Of a 3x3 convolution in the batch-blocked layout: the density under which visiting kept weights alone was measured to
# be faster than Winograd's filtering, and the channels above which they and oneDNN are.
SPARSE_DENSITY = 0.25
WINOGRAD_CHANNELS = 256

# Of all convolutions of a network, under which the blocked layout was measured to be faster than oneDNN even where the
# network leaves it or has wide layers.
BLOCKED_DENSITY = 0.35

# Bytes of weights from which one network is taken to fill a GPU; smaller ones are stacked.
FILLS_A_GPU = 16 << 20

# Images evaluated at a time, so that activations of small networks stay in the cache; of each thread on the CPU.
IMAGES_CUDA = 1024
IMAGES_PLANES = 64
IMAGES_BLOCKED = 16
IMAGES_VECTORS = 336

# What the activations of a path may take of a GPU. Far below what most have free, so that how images are divided, and
# with it the order of sums, is the same on all of them.
BYTES_CUDA = 4 << 30

# Multiplications of one product, [B, I] by [I, O] has B I O, from which oneDNN takes it on processors that are not
# Intel's: it needs 10 us before it multiplies, and an autograd function in Python as much again for a layer. Measured
# with torch 2.14 and one thread of an AMD Zen 5 with AVX-512, at 60 images a batch (MKL / oneDNN, in us):
#
#     inputs -> outputs   forward      gradient of the weight   gradient of the input
#     784 -> 300          288 / 152    276 / 139                278 / 139
#     4096 -> 256         1234 / 590   1259 / 541               1262 / 598
#     300 -> 100          40 / 30      37 / 30                  37 / 26
#     100 -> 10           5 / 13       3 / 14                   3 / 12
MIN_MULTIPLICATIONS = 1_500_000
