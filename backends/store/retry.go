package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Asking again waits 1 s, 2 s, 4 s … 30 s, or what the server says, and gives up after maxTries without a byte of progress: 1+2+4+8+16+30
// seconds is about the minute that a restarting server takes. A server that asks for more than maxRetryAfter is told of instead.
const (
	maxTries      = 7
	maxWait       = 30 * time.Second
	maxRetryAfter = 5 * time.Minute
)

// retry calls op until it succeeds, fails for good, or has failed maxTries times in a row without progress (op returns whether it got any).
func retry(ctx context.Context, base time.Duration, op func() (progress bool, err error)) error {
	wait := base
	for tries := 1; ; tries++ {
		progress, err := op()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !temporary(err) {
			return err
		}
		if progress {
			tries, wait = 0, base/10 // a server that ends connections after some bytes need not be waited for
		}
		if tries >= maxTries {
			return &gaveUpError{tries, err}
		}
		pause := wait
		if status, ok := errors.AsType[*StatusError](err); ok && status.RetryAfter > 0 {
			if status.RetryAfter > maxRetryAfter {
				return fmt.Errorf("asked to come back in %s: %w", status.RetryAfter, err)
			}
			pause = status.RetryAfter
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		wait = min(2*wait, max(base, maxWait))
	}
}

// gaveUpError ends retry, also one around it: seven times seven tries would help nobody.
type gaveUpError struct {
	tries int
	err   error
}

func (e *gaveUpError) Error() string {
	return fmt.Sprintf("gave up after %d tries: %v", e.tries, e.err)
}
func (e *gaveUpError) Unwrap() error { return e.err }

// temporary says whether asking again may help: what the network did, not what the server or the disk decided.
func temporary(err error) bool {
	if _, ok := errors.AsType[*gaveUpError](err); ok {
		return false
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.temporary()
	}
	if name, ok := errors.AsType[*net.DNSError](err); ok && name.IsNotFound {
		return false
	}
	// A system call's error has the methods of a net.Error, too: a full disk must not pass for a network that may come back.
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return false
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return slices.Contains(netErrors, number)
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errStalled)
}

// netErrors are what a connection that breaks or does not come about says.
var netErrors = []syscall.Errno{
	syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT, syscall.EHOSTUNREACH,
	syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EADDRNOTAVAIL, syscall.ENOTCONN,
}

// retryAfter reads Retry-After (RFC 9110 §10.2.3: seconds or a date), else the reset of a used-up RateLimit header, which hubs send as
// `"api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers).
func retryAfter(h http.Header, now time.Time) time.Duration {
	if v := h.Get("Retry-After"); v != "" {
		if s, err := strconv.Atoi(v); err == nil && s >= 0 {
			return time.Duration(min(s, 1<<30)) * time.Second
		}
		if at, err := http.ParseTime(v); err == nil {
			return max(0, at.Sub(now))
		}
	}
	used, reset := false, time.Duration(0)
	for part := range strings.SplitSeq(h.Get("RateLimit"), ";") {
		switch k, v, _ := strings.Cut(strings.TrimSpace(part), "="); k {
		case "r":
			used = v == "0"
		case "t":
			if s, err := strconv.Atoi(v); err == nil && s >= 0 {
				reset = time.Duration(min(s, 1<<30)) * time.Second
			}
		}
	}
	if used {
		return reset
	}
	return 0
}
