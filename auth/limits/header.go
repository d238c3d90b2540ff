package limits

import (
	"strconv"
	"time"
)

// AppendReset writes a duration as OpenAI's x-ratelimit-reset-* headers have it, for example 12ms, 1.5s and 6m0s: as
// time.Duration prints itself, rounded up to milliseconds. Negative ones are 0s.
func AppendReset(dst []byte, d time.Duration) []byte {
	ms := int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
	if ms > 0 && ms < 1000 {
		return append(strconv.AppendInt(dst, ms, 10), "ms"...)
	}
	seconds := ms / 1000
	if seconds >= 3600 {
		dst = append(strconv.AppendInt(dst, seconds/3600, 10), 'h')
	}
	if seconds >= 60 {
		dst = append(strconv.AppendInt(dst, seconds/60%60, 10), 'm')
	}
	dst = strconv.AppendInt(dst, seconds%60, 10)
	if rest := ms % 1000; rest > 0 {
		dst = append(dst, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
		for dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
	}
	return append(dst, 's')
}
