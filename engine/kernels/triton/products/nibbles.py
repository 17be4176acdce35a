"""Nibbles to whole numbers, and whole weights of 4 bits unpacked.

Source of the conversion by bits: Kim et al. 2022, "Who Says Elephants Can't Run".
"""

import triton
import triton.language as tl

# Four bytes in one register become four numbers of the low nibbles and four of the high ones.
# 0x4300 is 128 in bfloat16 and 0x6400 is 1024 in float16, and their last 4 bits count by ones: so
# 0x4300 | q is 128 + q, from which one fma takes 128, or 136 where 8 stands for zero.
_SPREAD = """{
.reg .b32 a, b, c, d, low, base, one, less;
mov.b32 low, 0x000F000F;
mov.b32 base, %s;
mov.b32 one, %s;
mov.b32 less, %s;
prmt.b32 a, $4, 0, 0x4140;
prmt.b32 b, $4, 0, 0x4342;
shr.u32 c, a, 4;
shr.u32 d, b, 4;
lop3.b32 a, a, low, base, 0xEA;
lop3.b32 b, b, low, base, 0xEA;
lop3.b32 c, c, low, base, 0xEA;
lop3.b32 d, d, low, base, 0xEA;
fma.rn.%s $0, a, one, less;
fma.rn.%s $1, b, one, less;
fma.rn.%s $2, c, one, less;
fma.rn.%s $3, d, one, less;
}"""
_BF16 = ("bf16x2",) * 4
_F16 = ("f16x2",) * 4
BF16_FROM_0 = tl.constexpr(_SPREAD % ("0x43004300", "0x3F803F80", "0xC300C300", *_BF16))
BF16_AROUND_8 = tl.constexpr(_SPREAD % ("0x43004300", "0x3F803F80", "0xC308C308", *_BF16))
F16_FROM_0 = tl.constexpr(_SPREAD % ("0x64006400", "0x3C003C00", "0xE400E400", *_F16))
F16_AROUND_8 = tl.constexpr(_SPREAD % ("0x64006400", "0x3C003C00", "0xE408E408", *_F16))
REGISTERS = tl.constexpr("=r,=r,=r,=r,r")


@triton.jit
def nibbles(byte, AROUND_8: tl.constexpr, TYPE: tl.constexpr, ASSEMBLY: tl.constexpr):
    """Two tiles of whole numbers from one of bytes: of the low nibbles, and of the high ones."""
    if not ASSEMBLY:
        low = (byte & 0xF).to(TYPE)
        high = (byte >> 4).to(TYPE)
        if AROUND_8:
            low -= 8
            high -= 8
    elif TYPE.is_bf16():
        low, high = tl.inline_asm_elementwise(
            BF16_AROUND_8 if AROUND_8 else BF16_FROM_0,
            REGISTERS,
            [byte],
            (tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=4,
        )
    else:
        low, high = tl.inline_asm_elementwise(
            F16_AROUND_8 if AROUND_8 else F16_FROM_0,
            REGISTERS,
            [byte],
            (tl.float16, tl.float16),
            is_pure=True,
            pack=4,
        )
    return low, high


@triton.jit
def unpack(
    packed,
    scales,
    lows,
    out,
    outputs,
    padded,
    inputs,
    TILE_OUTPUTS: tl.constexpr,
    UNIT: tl.constexpr,
    GROUP: tl.constexpr,
    TAIL: tl.constexpr,
):
    """out = the weight [outputs, inputs]; computed in float32 and rounded once.

    Grid: (units, ceil(outputs / TILE_OUTPUTS)). The arguments are those of `four_bit_product`.
    """
    HALF: tl.constexpr = UNIT // 2
    unit = tl.program_id(0)
    n = tl.program_id(1) * TILE_OUTPUTS + tl.arange(0, TILE_OUTPUTS)
    j = tl.arange(0, HALF)
    run = padded.to(tl.int64) * HALF
    byte = tl.load(packed + unit * run + n[:, None] * HALF + j[None, :])
    low, high = nibbles(byte, lows is None, tl.float32, False)
    first = 0 if GROUP == 0 else unit * UNIT // GROUP
    second = first + 1 if GROUP == HALF else first
    low *= tl.load(scales + first * padded + n).to(tl.float32)[:, None]
    high *= tl.load(scales + second * padded + n).to(tl.float32)[:, None]
    if lows is not None:
        low += tl.load(lows + first * padded + n).to(tl.float32)[:, None]
        high += tl.load(lows + second * padded + n).to(tl.float32)[:, None]
    at = out + n.to(tl.int64)[:, None] * inputs + unit * UNIT + j[None, :]
    live = (n < outputs)[:, None] & (j < (inputs - unit * UNIT if TAIL else UNIT))[None, :]
    tl.store(at, low.to(out.dtype.element_ty), mask=live)
    live = (n < outputs)[:, None] & (j + HALF < (inputs - unit * UNIT if TAIL else UNIT))[None, :]
    tl.store(at + HALF, high.to(out.dtype.element_ty), mask=live)
