// Package jwt says who a JSON Web Token (RFC 7519) belongs to. Issuers are configured; their keys are fetched in the
// background from their JWKS (RFC 7517), which OpenID Connect discovery finds. Only asymmetric algorithms exist here, and each key is
// good for exactly one of them, whatever a token's header says.
//
// It reads no HTTP header, and does not decide what a tenant may do. Verifier is safe for concurrent use. Tokens are kept
// nowhere, only hashes of them.
package jwt

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid is matched by every error about the token itself. What exactly is wrong is for the log.
	ErrInvalid = errors.New("invalid token")
	// ErrExpired matches ErrInvalid as well.
	ErrExpired = fmt.Errorf("%w: expired", ErrInvalid)
	// ErrNoKeys means that the issuer's keys could not be fetched, or so long ago that they are not trusted any more. The token may
	// be good.
	ErrNoKeys = errors.New("the issuer's keys are not available")
)
