package flags

import (
	"math/big"
	"strconv"
	"strings"
)

var sizeUnits = []struct {
	suffix string
	times  int64
}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}}

// SizeValue reads a number of tokens as options of type Size do: 8192, 32k (32,000), 1.5M, 64Ki (65,536).
// ok is false for what is none, or does not fit.
func SizeValue(text string) (n int64, ok bool) {
	text = strings.TrimSpace(text)
	if pythonInt.MatchString(text) {
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
		return n, err == nil
	}
	if !sizeSuffix.MatchString(text) {
		return 0, false
	}
	for _, unit := range sizeUnits {
		if number, found := strings.CutSuffix(text, unit.suffix); found {
			value, ok := new(big.Rat).SetString(number)
			if !ok {
				return 0, false
			}
			value.Mul(value, new(big.Rat).SetInt64(unit.times))
			whole := new(big.Int).Quo(value.Num(), value.Denom())
			return whole.Int64(), whole.IsInt64()
		}
	}
	return 0, false
}
