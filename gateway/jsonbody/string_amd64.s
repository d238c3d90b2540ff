#include "textflag.h"

// One byte in all 32 lanes.
#define ALL(name, eight) \
	DATA name<>+0(SB)/8, $eight \
	DATA name<>+8(SB)/8, $eight \
	DATA name<>+16(SB)/8, $eight \
	DATA name<>+24(SB)/8, $eight \
	GLOBL name<>(SB), RODATA|NOPTR, $32

// A table of 16 bytes, in both halves, since VPSHUFB looks up each half by itself.
#define TABLE(name, low, high) \
	DATA name<>+0(SB)/8, $low \
	DATA name<>+8(SB)/8, $high \
	DATA name<>+16(SB)/8, $low \
	DATA name<>+24(SB)/8, $high \
	GLOBL name<>(SB), RODATA|NOPTR, $32

ALL(spaces, 0x2020202020202020)
ALL(quotes, 0x2222222222222222)
ALL(slashes, 0x5C5C5C5C5C5C5C5C)
ALL(nibbles, 0x0F0F0F0F0F0F0F0F)
ALL(thirds, 0x6060606060606060)  // 0xE0 - 0x80
ALL(fourths, 0x7070707070707070) // 0xF0 - 0x80
ALL(tops, 0x8080808080808080)

// By the low half of a byte: the byte to tell, '"' at 2 and '\\' at 12. The others hold what cannot stand there.
TABLE(marked, 0x0101010101220202, 0x0101015C01010101)

// Whether a byte may follow a backslash, 'u' left out: the tables by its low and high half share a bit for
// 0x22 '"' and 0x2F '/' (1), 0x5C '\\' (2), 0x62 'b', 0x66 'f', 0x6E 'n' (4), 0x72 'r' and 0x74 't' (8).
TABLE(escapeLow, 0x00040008000D0000, 0x0104000200000000)
TABLE(escapeHigh, 0x0804020000010000, 0x0000000000000000)

// UTF-8 by the tables of Keiser and Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte" (2021):
// a bit for each way in which two bytes in a row can be wrong, set where the high half of the first, its low
// half and the high half of the second all allow it.
//	0x01 too short: a first byte without its second        0x10 surrogate
//	0x02 too long: a later byte behind ASCII               0x20 overlong in two bytes
//	0x04 overlong in three bytes                           0x40 overlong in four, or beyond 0x13FFFF
//	0x08 beyond U+10FFFF                                   0x80 two later bytes: right where a third or fourth stands
TABLE(firstHigh, 0x0202020202020202, 0x4915012180808080)
TABLE(firstLow, 0xCBCBCB8B8383A3E7, 0xCBCBDBCBCBCBCBCB)
TABLE(secondHigh, 0x0101010101010101, 0x01010101BABAAEE6)

// func skipTextAVX2(b []byte, i int) (n int, closed bool)
//
// SI is the next byte to read, R8 and R9 the last places where 64 and 128 bytes can be read. R10 is 1 when the
// byte before SI is a backslash that escapes; R14 is 1 when that byte is not ASCII, and so may be amid a
// character.
TEXT ·skipTextAVX2(SB), NOSPLIT, $0-41
	MOVQ b_base+0(FP), AX
	MOVQ b_len+8(FP), CX
	MOVQ i+24(FP), SI
	ADDQ AX, SI
	ADDQ AX, CX
	LEAQ -64(CX), R8
	LEAQ -128(CX), R9
	XORL R10, R10
	XORL R14, R14
	MOVQ $0xAAAAAAAAAAAAAAAA, BX
	VMOVDQU spaces<>(SB), Y15
	VMOVDQU marked<>(SB), Y14
	VMOVDQU quotes<>(SB), Y13
	VMOVDQU slashes<>(SB), Y12
	VMOVDQU nibbles<>(SB), Y11

	// Plain ASCII, 128 bytes at a time.
plain:
	CMPQ SI, R9
	JHI  block
	VMOVDQU (SI), Y0
	VMOVDQU 32(SI), Y1
	VMOVDQU 64(SI), Y2
	VMOVDQU 96(SI), Y3
	PREFETCHT0 1024(SI)
	PREFETCHT0 1088(SI)
	VPSHUFB  Y0, Y14, Y4
	VPSHUFB  Y1, Y14, Y5
	VPSHUFB  Y2, Y14, Y6
	VPSHUFB  Y3, Y14, Y7
	VPCMPEQB Y0, Y4, Y4
	VPCMPEQB Y1, Y5, Y5
	VPCMPEQB Y2, Y6, Y6
	VPCMPEQB Y3, Y7, Y7
	VPMINSB  Y0, Y1, Y0
	VPMINSB  Y2, Y3, Y2
	VPOR     Y4, Y5, Y4
	VPOR     Y6, Y7, Y6
	VPMINSB  Y0, Y2, Y0
	VPOR     Y4, Y6, Y4
	VPCMPGTB Y0, Y15, Y0 // signed: control characters and what is not ASCII
	VPOR     Y0, Y4, Y0
	VPTEST   Y0, Y0
	JNZ  block
	ADDQ $128, SI
	JMP  plain

	// Any text, 64 bytes at a time. Masks have a bit for each byte, the first lowest.
block:
	CMPQ SI, R8
	JHI  rest
	VMOVDQU (SI), Y0
	VMOVDQU 32(SI), Y1
	VPCMPGTB Y0, Y15, Y2
	VPCMPGTB Y1, Y15, Y3
	VPCMPEQB Y0, Y13, Y4
	VPCMPEQB Y1, Y13, Y5
	VPCMPEQB Y0, Y12, Y6
	VPCMPEQB Y1, Y12, Y7
	VPMOVMSKB Y0, AX
	VPMOVMSKB Y1, R11
	SHLQ $32, R11
	ORQ  AX, R11 // not ASCII
	VPMOVMSKB Y2, AX
	VPMOVMSKB Y3, DX
	SHLQ $32, DX
	ORQ  AX, DX
	XORQ R11, DX // control characters, and later all that stops us
	VPMOVMSKB Y4, AX
	VPMOVMSKB Y5, R12
	SHLQ $32, R12
	ORQ  AX, R12 // quotes
	VPMOVMSKB Y6, AX
	VPMOVMSKB Y7, R13
	SHLQ $32, R13
	ORQ  AX, R13 // backslashes
	MOVQ R13, AX
	ORQ  R10, AX
	JZ   utf8

	// Of each run of backslashes, every second one escapes what follows. Taking the run's ones from the odd
	// bits carries through the run, and what changed against the odd bits are the bytes that escape or end it.
	MOVQ R10, AX
	NOTQ AX
	ANDQ R13, AX         // backslashes that are not escaped by the block before
	LEAQ (AX)(AX*1), CX
	ORQ  BX, CX
	SUBQ AX, CX
	XORQ BX, CX
	MOVQ R13, AX
	ORQ  R10, AX
	XORQ CX, AX          // the escaped bytes
	ANDQ R13, CX
	SHRQ $63, CX
	MOVQ CX, R10
	MOVQ AX, CX
	NOTQ CX
	ANDQ CX, R12         // quotes that are not escaped
	VMOVDQU escapeLow<>(SB), Y2
	VMOVDQU escapeHigh<>(SB), Y3
	VPSRLW  $4, Y0, Y4
	VPSRLW  $4, Y1, Y5
	VPAND   Y11, Y4, Y4
	VPAND   Y11, Y5, Y5
	VPSHUFB Y4, Y3, Y4
	VPSHUFB Y5, Y3, Y5
	VPSHUFB Y0, Y2, Y6
	VPSHUFB Y1, Y2, Y7
	VPAND   Y4, Y6, Y6
	VPAND   Y5, Y7, Y7
	VPXOR   Y4, Y4, Y4
	VPCMPEQB Y4, Y6, Y6
	VPCMPEQB Y4, Y7, Y7
	VPMOVMSKB Y6, CX
	VPMOVMSKB Y7, R15
	SHLQ $32, R15
	ORQ  R15, CX
	ANDQ CX, AX          // escaped bytes that may not be, and 'u'
	JZ   utf8
	SHRQ $1, AX
	JCS  before
	ORQ  AX, DX          // stop at their backslashes

utf8:
	MOVQ R11, AX
	ORQ  R14, AX
	JZ   decide
	VMOVDQU firstHigh<>(SB), Y10
	VMOVDQU firstLow<>(SB), Y9
	VMOVDQU secondHigh<>(SB), Y8
	VMOVDQU -1(SI), Y2
	VMOVDQU 31(SI), Y3
	VPSRLW  $4, Y2, Y4
	VPSRLW  $4, Y3, Y5
	VPAND   Y11, Y4, Y4
	VPAND   Y11, Y5, Y5
	VPSHUFB Y4, Y10, Y4
	VPSHUFB Y5, Y10, Y5
	VPAND   Y11, Y2, Y2
	VPAND   Y11, Y3, Y3
	VPSHUFB Y2, Y9, Y2
	VPSHUFB Y3, Y9, Y3
	VPAND   Y2, Y4, Y4
	VPAND   Y3, Y5, Y5
	VPSRLW  $4, Y0, Y2
	VPSRLW  $4, Y1, Y3
	VPAND   Y11, Y2, Y2
	VPAND   Y11, Y3, Y3
	VPSHUFB Y2, Y8, Y2
	VPSHUFB Y3, Y8, Y3
	VPAND   Y2, Y4, Y4
	VPAND   Y3, Y5, Y5
	VMOVDQU -2(SI), Y2
	VMOVDQU 30(SI), Y3
	VPSUBUSB thirds<>(SB), Y2, Y2
	VPSUBUSB thirds<>(SB), Y3, Y3
	VMOVDQU -3(SI), Y6
	VMOVDQU 29(SI), Y7
	VPSUBUSB fourths<>(SB), Y6, Y6
	VPSUBUSB fourths<>(SB), Y7, Y7
	VPOR    Y2, Y6, Y2
	VPOR    Y3, Y7, Y3
	VPAND   tops<>(SB), Y2, Y2 // where a third or fourth byte must stand
	VPAND   tops<>(SB), Y3, Y3
	VPXOR   Y2, Y4, Y4
	VPXOR   Y3, Y5, Y5
	VPOR    Y4, Y5, Y2
	VPTEST  Y2, Y2
	JZ   decide
	VPXOR   Y2, Y2, Y2
	VPCMPEQB Y2, Y4, Y4
	VPCMPEQB Y2, Y5, Y5
	VPMOVMSKB Y4, AX
	VPMOVMSKB Y5, CX
	SHLQ $32, CX
	ORQ  CX, AX
	NOTQ AX
	ORQ  AX, DX

decide:
	MOVQ DX, AX
	ORQ  R12, AX
	JNZ  found
	ADDQ $64, SI
	MOVQ R11, R14
	SHRQ $63, R14
	ORQ  R13, R11
	JNZ  block
	JMP  plain

found:
	TESTQ R12, R12
	JZ   stop
	LEAQ -1(R12), AX
	XORQ R12, AX
	ANDQ AX, DX // what stops us up to the closing quote; there, an unfinished character before it does
	JNZ  stop
	BSFQ R12, AX
	LEAQ 1(SI)(AX*1), SI
	MOVB $1, closed+40(FP)
	JMP  done

stop:
	BSFQ DX, AX
	ADDQ AX, SI
	MOVB $0, closed+40(FP)
	JMP  done

before:
	DECQ SI
	MOVB $0, closed+40(FP)
	JMP  done

rest:
	SUBQ R10, SI
	MOVB $0, closed+40(FP)

done:
	SUBQ b_base+0(FP), SI
	MOVQ SI, n+32(FP)
	VZEROUPPER
	RET
