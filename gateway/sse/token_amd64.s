#include "textflag.h"

// func indexEndsAVX2(b []byte, first, last, quote byte, apart int) int
//
// SI is the next place to look at, R8 the last one from which 32 of them can be seen at once.
TEXT ·indexEndsAVX2(SB), NOSPLIT, $0-48
	MOVQ b_base+0(FP), SI
	MOVQ b_len+8(FP), CX
	MOVQ apart+32(FP), DX
	VPBROADCASTB first+24(FP), Y0
	VPBROADCASTB last+25(FP), Y1
	VPBROADCASTB quote+26(FP), Y4
	LEAQ -32(SI)(CX*1), R8
	SUBQ DX, R8

next:
	VPCMPEQB (SI), Y0, Y2
	VPCMPEQB -1(SI)(DX*1), Y1, Y3
	VPCMPEQB (SI)(DX*1), Y4, Y5
	VPAND    Y2, Y3, Y2
	VPAND    Y2, Y5, Y2
	VPMOVMSKB Y2, AX
	TESTL AX, AX
	JNZ  found
	ADDQ $32, SI
	CMPQ SI, R8
	JLS  next

	// Fewer are left: look at the last 32 once more, of which the first are known to be none.
	SUBQ $32, SI
	CMPQ SI, R8
	JEQ  none
	MOVQ R8, SI
	JMP  next

found:
	BSFL AX, AX
	ADDQ AX, SI
	SUBQ b_base+0(FP), SI
	MOVQ SI, ret+40(FP)
	VZEROUPPER
	RET

none:
	MOVQ $-1, ret+40(FP)
	VZEROUPPER
	RET
