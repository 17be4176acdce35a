"""Cached keys and values of 8 bits, widened to the dtype of a product by moving their bits.

Conversions by the hardware run at a fraction of its rate of arithmetic, and where Triton may move
them it does so behind the layout of the product, which bytes reach one at a time. So they are
written in PTX that stays where it is.
"""

import triton
import triton.language as tl

# Four int8 to bf16. The low seven bits under the exponent of 128 read 128 + low; the sign bit alone
# under that exponent reads 128 or 256; the difference is the number.
_INT8_BF16 = tl.constexpr("""{
.reg .b32 low, sign, e, a, b, n;
and.b32 low, $2, 0x7f7f7f7f;
and.b32 sign, $2, 0x80808080;
mov.b32 e, 0x43434343;
mov.b32 n, 0xbf80bf80;
prmt.b32 a, low, e, 0x4140;
prmt.b32 b, sign, e, 0x4140;
fma.rn.bf16x2 $0, b, n, a;
prmt.b32 a, low, e, 0x4342;
prmt.b32 b, sign, e, 0x4342;
fma.rn.bf16x2 $1, b, n, a;
}""")

# Four int8 to fp16. With 128 added, a byte under the exponent of 1024 reads 1024 + byte.
_INT8_FP16 = tl.constexpr("""{
.reg .b32 t, e, c;
xor.b32 t, $2, 0x80808080;
mov.b32 e, 0x64646464;
mov.b32 c, 0x64806480;
prmt.b32 $0, t, e, 0x4140;
prmt.b32 $1, t, e, 0x4342;
sub.f16x2 $0, $0, c;
sub.f16x2 $1, $1, c;
}""")

# Four e4m3 to bf16. Exponent and mantissa, moved to where bf16 has its own, read 2^-120 of the
# number, because the exponents are biased by 7 and 127. Adding -0 keeps the sign of zero.
_FP8_BF16 = tl.constexpr("""{
.reg .b32 a, b, s, c, z;
mov.b32 c, 0x7b807b80;
mov.b32 z, 0x80008000;
prmt.b32 a, $2, 0, 0x1404;
prmt.b32 b, $2, 0, 0x3424;
and.b32 s, a, 0x80008000;
and.b32 a, a, 0x7f007f00;
shr.u32 a, a, 4;
or.b32 a, a, s;
fma.rn.bf16x2 $0, a, c, z;
and.b32 s, b, 0x80008000;
and.b32 b, b, 0x7f007f00;
shr.u32 b, b, 4;
or.b32 b, b, s;
fma.rn.bf16x2 $1, b, c, z;
}""")

# Four e4m3 to fp16, whose exponent is biased by 15: 2^-8 of the number.
_FP8_FP16 = tl.constexpr("""{
.reg .b32 a, b, s, c;
mov.b32 c, 0x5c005c00;
prmt.b32 a, $2, 0, 0x1404;
prmt.b32 b, $2, 0, 0x3424;
and.b32 s, a, 0x80008000;
and.b32 a, a, 0x7f007f00;
shr.u32 a, a, 1;
or.b32 a, a, s;
mul.rn.f16x2 $0, a, c;
and.b32 s, b, 0x80008000;
and.b32 b, b, 0x7f007f00;
shr.u32 b, b, 1;
or.b32 b, b, s;
mul.rn.f16x2 $1, b, c;
}""")


@triton.jit
def widen(x, dtype: tl.constexpr, FORMAT: tl.constexpr, PTX: tl.constexpr):
    """Cached numbers in the dtype of a product.

    Args:
        x: of the dtype already; int8; or the bytes of float8_e4m3fn as uint8.
        dtype: bfloat16, float16 or float32.
        FORMAT: "none", "int8" or "fp8".
        PTX: whether there is a compiler for PTX; otherwise they are cast.
    """
    if FORMAT == "none":
        y = x
    elif PTX:
        if dtype == tl.bfloat16:
            if FORMAT == "int8":
                y = tl.inline_asm_elementwise(
                    _INT8_BF16, "=r,=r,r", [x], tl.bfloat16, is_pure=False, pack=4
                )
            else:
                y = tl.inline_asm_elementwise(
                    _FP8_BF16, "=r,=r,r", [x], tl.bfloat16, is_pure=False, pack=4
                )
        elif FORMAT == "int8":
            y = tl.inline_asm_elementwise(
                _INT8_FP16, "=r,=r,r", [x], tl.float16, is_pure=False, pack=4
            )
        else:
            y = tl.inline_asm_elementwise(
                _FP8_FP16, "=r,=r,r", [x], tl.float16, is_pure=False, pack=4
            )
    elif FORMAT == "int8":
        y = x.to(tl.float32)
    else:
        y = x.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    return y.to(dtype)
