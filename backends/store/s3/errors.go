package s3

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"

	"pilotlight/backends/store"
)

// Error is what an object store refused, in words, with what to do about it. It wraps one of package store's errors.
type Error struct {
	Code    string // the server's own word, such as "NoSuchBucket"
	Problem string
	Advice  string
	Err     error
}

func (e *Error) Error() string { return e.Problem + ": " + e.Advice }

func (e *Error) Unwrap() error { return e.Err }

// Kinds of refusal that package store has no name for.
var (
	ErrDenied = errors.New("access denied")
	ErrClock  = errors.New("the clocks differ")
	ErrRegion = errors.New("wrong region")
)

// explain turns an error of the client into one that helps. what is the object or bucket that was asked for.
func (b *Bucket) explain(err error, what string) error {
	if err == nil {
		return nil
	}
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return b.explainNetwork(err)
	}
	e := &Error{Code: answer.Code}
	switch answer.Code {
	case "NoSuchBucket":
		e.Err, e.Problem = store.ErrNotFound, fmt.Sprintf("there is no bucket %q at %s", b.location.Bucket, b.host())
		e.Advice = "check its name, and AWS_ENDPOINT_URL if it is not at Amazon"
	case "NoSuchKey", "NoSuchVersion":
		e.Err, e.Problem, e.Advice = store.ErrFileNotFound, "there is no object "+what, "check the prefix; it may have been removed just now"
	case "AccessDenied", "AllAccessDisabled", "Forbidden":
		e.Err, e.Problem = ErrDenied, "access to "+what+" is denied"
		if b.settings.Anonymous {
			e.Err = store.ErrUnauthorized
			e.Advice = "no credentials were used (" + b.settings.Identity + ") and it is not public; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
		} else {
			e.Advice = "the credentials (" + b.settings.Identity + ") are known, but may not do this; grant s3:ListBucket on the bucket and s3:GetObject on its objects (s3:PutObject, too, for store.remote)"
		}
	case "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException":
		e.Err, e.Problem = store.ErrUnauthorized, "the server does not know the access key"
		e.Advice = "check the credentials (" + b.settings.Identity + "), and AWS_ENDPOINT_URL if they are for another server"
	case "SignatureDoesNotMatch":
		e.Err, e.Problem = store.ErrUnauthorized, "the secret key does not fit the access key"
		e.Advice = "check AWS_SECRET_ACCESS_KEY (" + b.settings.Identity + ")"
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired":
		e.Err, e.Problem, e.Advice = store.ErrUnauthorized, "the session token has expired", "get new credentials ("+b.settings.Identity+")"
	case "InvalidToken", "InvalidSecurity":
		e.Err, e.Problem = store.ErrUnauthorized, "the session token is not valid"
		e.Advice = "AWS_SESSION_TOKEN belongs to one pair of keys; set all three, or remove it (" + b.settings.Identity + ")"
	case "RequestTimeTooSkewed":
		e.Err, e.Problem, e.Advice = ErrClock, "this machine's clock and the server's differ too much", "set this machine's time (NTP); 15 minutes are allowed"
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		e.Err, e.Problem = ErrRegion, "the bucket is in another region than "+orElse(b.settings.Region, "the default")
		e.Advice = "set AWS_REGION to the bucket's region"
		if answer.Region != "" {
			e.Advice = "set AWS_REGION=" + answer.Region
		} else if answer.Message != "" {
			e.Advice += " (the server says: " + shorten(answer.Message) + ")"
		}
	case "InvalidObjectState":
		e.Err, e.Problem, e.Advice = store.ErrFileNotFound, what+" is archived", "restore it first (storage class Glacier)"
	case "PreconditionFailed", "InvalidRange":
		return fmt.Errorf("%w: %s", store.ErrChanged, what)
	case "InvalidBucketName", "XMinioInvalidObjectName":
		e.Err, e.Problem, e.Advice = store.ErrBadListing, shorten(answer.Message), "it cannot be asked for by this name"
	default:
		return &store.StatusError{Status: answer.StatusCode, Message: strings.TrimSpace(answer.Code + " " + shorten(answer.Message))}
	}
	return e
}

// explainNetwork takes the address out of network errors, which are judged by their cause.
func (b *Bucket) explainNetwork(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = fmt.Errorf("asking %s: %w", b.host(), e.Err)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &Error{Err: err, Problem: "the certificate of " + b.host() + " is signed by nobody known here", Advice: "set AWS_CA_BUNDLE to a file with its authority's certificate"}
	}
	return err
}

func (b *Bucket) host() string {
	if b.settings.Endpoint == nil {
		return "Amazon S3"
	}
	return b.settings.Endpoint.Host
}

func shorten(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// notFound says whether an answer means that the object is not there.
func notFound(err error) bool {
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	return ok && answer.StatusCode == http.StatusNotFound && answer.Code != "NoSuchBucket"
}
