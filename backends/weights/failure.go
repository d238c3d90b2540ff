package weights

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/backends/store/s3"
)

// failure explains why weights did not come. token says whether the hub was given one. Message and Advice name no address, path or token.
func failure(err error, token bool) *backends.Failure {
	var f *backends.Failure
	if errors.As(err, &f) {
		return f
	}
	f = &backends.Failure{Class: backends.ClassUnreachable, Err: err}
	var errno syscall.Errno
	var path *fs.PathError
	var object *s3.Error
	switch {
	case errors.Is(err, context.Canceled):
		f.Class, f.Message = backends.ClassStopped, "the download was cancelled"
	case errors.Is(err, store.ErrGated):
		f.Class, f.Permanent, f.Message = backends.ClassGated, true, "the model's repository is gated"
		f.Advice = "ask for access on the model's page, and give the token of that account: HF_TOKEN"
		if token {
			f.Advice = "ask for access on the model's page with the account that HF_TOKEN belongs to, or give another token"
		}
	case errors.Is(err, s3.ErrDenied):
		f.Class, f.Permanent, f.Message = backends.ClassGated, true, "the object store denies access with these credentials"
		f.Advice = "grant them s3:ListBucket and s3:GetObject (s3:PutObject, too, for store.remote), or set AWS_PROFILE or AWS_ACCESS_KEY_ID to others"
	case errors.Is(err, s3.ErrRegion):
		f.Class, f.Permanent, f.Message, f.Advice = backends.ClassUnreachable, true, "the bucket is in another region", "set AWS_REGION to the bucket's region"
	case errors.Is(err, s3.ErrClock):
		f.Message, f.Advice = "the object store refuses this machine's clock", "set the machine's time (NTP); 15 minutes are allowed"
	case errors.As(err, &object) && errors.Is(err, store.ErrUnauthorized):
		f.Class, f.Permanent, f.Message = backends.ClassGated, true, "the object store refuses the credentials"
		f.Advice = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE"
	case errors.As(err, &object) && errors.Is(err, store.ErrNotFound):
		f.Class, f.Permanent, f.Message = backends.ClassModelNotFound, true, "there is no such bucket, or nothing below the prefix"
		f.Advice = "check model_path, and AWS_ENDPOINT_URL if the bucket is not at Amazon"
	case errors.Is(err, store.ErrUnauthorized):
		f.Class, f.Permanent, f.Message = backends.ClassGated, true, "the place of the weights refuses access"
		f.Advice = "give a token or credentials that may read the model: HF_TOKEN for a hub"
	case errors.Is(err, store.ErrNotFound):
		f.Class, f.Permanent, f.Message = backends.ClassModelNotFound, true, "there is no such model, or it is private"
		f.Advice = "check the name; a private model needs HF_TOKEN, of which there is none"
		if token {
			f.Advice = "check the name, and that the token HF_TOKEN may read a private model"
		}
	case errors.Is(err, store.ErrRevisionNotFound):
		f.Class, f.Permanent, f.Message, f.Advice = backends.ClassModelNotFound, true, "the model has no such revision", "name a branch, a tag or a commit that it has"
	case errors.Is(err, store.ErrFileNotFound):
		f.Class, f.Permanent, f.Message, f.Advice = backends.ClassModelNotFound, true, "the model has no such files", "check the patterns of include and exclude"
	case errors.Is(err, store.ErrBadListing):
		f.Class, f.Permanent, f.Message = backends.ClassModelNotFound, true, "the place of the weights lists files that cannot be stored"
	case errors.Is(err, store.ErrOverBudget):
		f.Class, f.Message = backends.ClassDiskFull, "the weights do not fit in the store's budget"
		f.Advice = "raise store.max_bytes, or remove models: pilotlight models ls, pilotlight models rm"
	case errors.Is(err, store.ErrDiskFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Class, f.Message = backends.ClassDiskFull, "the disk has no room for the weights"
		f.Advice = "free space, or remove models: pilotlight models ls, pilotlight models rm"
	case errors.Is(err, store.ErrHashMismatch):
		f.Message, f.Advice = "the weights' content is not what their place lists, twice in a row", "look at what is between: a proxy, a mirror, or a broken upload"
	case errors.Is(err, store.ErrChanged):
		f.Message, f.Advice = "the weights changed while they were fetched", "none is needed: the next try fetches what is there then"
	case errors.Is(err, fs.ErrNotExist):
		f.Class, f.Permanent, f.Message = backends.ClassModelNotFound, true, "the folder of the weights does not exist"
	case errors.Is(err, fs.ErrPermission), errors.As(err, &path), errors.As(err, &errno) && local(errno):
		f.Class, f.Message, f.Advice = backends.ClassLaunch, "the store cannot be used", "check that the gateway may read and write the store's folder"
	default:
		f.Message, f.Advice = "the place of the weights cannot be reached, or does not answer as it should", "check the network, HF_ENDPOINT and proxies"
	}
	return f
}

// local says whether an error number is one of files and not of connections.
func local(e syscall.Errno) bool {
	return e == syscall.EROFS || e == syscall.EIO || e == syscall.ENOTDIR || e == syscall.EISDIR || e == syscall.EMFILE || e == syscall.ENFILE || e == syscall.ENOLCK || e == syscall.EOPNOTSUPP
}

// unnamed is for a name that leads to nothing. It is looked for again, since a prefetch by hand may bring it at any time.
func unnamed(name string, err error) *backends.Failure {
	return &backends.Failure{
		Class: backends.ClassModelNotFound, Message: "the store has nothing by the model's name in it",
		Advice: fmt.Sprintf("pilotlight prefetch SOURCE --name %s, or an entry of prefetch: with that name", name), Err: err,
	}
}
