package stream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"

	"pilotlight/backends"
	"pilotlight/backends/sglang/installed"
	"pilotlight/backends/store"
	"pilotlight/backends/store/s3"
)

// Loader tells what an engine's Python has of the streaming loader; installed.Detector does.
type Loader interface {
	Streamer(ctx context.Context, command []string, dir string, env map[string]string) (installed.Streamer, error)
}

// Plan is a streamed start that nothing is known to be in the way of.
type Plan struct {
	// Address is what the engine gets as its model path; its files but for the weights are those of Commit.
	Address string
	Commit  string
	Files   int   // of weights
	Bytes   int64 // of them
	Loader  string
	// Identity says where the credentials come from.
	Identity string
	// Env are variables for the engine; see Environment.
	Env map[string]string
}

// String is the plan in words.
func (p Plan) String() string {
	return fmt.Sprintf("%s in %d files, by runai-model-streamer %s; credentials: %s", humanize.IBytes(uint64(p.Bytes)), p.Files, p.Loader, p.Identity)
}

// Check finds out whether spec's engine can stream its weights: whether its Python has the loader, credentials are there, the bucket answers,
// and holds weights that the loader takes. env looks up the engine's variables. The error is a *backends.Failure.
func Check(ctx context.Context, spec *backends.Spec, env func(string) (string, bool), loader Loader) (Plan, error) {
	has, err := loader.Streamer(ctx, spec.Command, spec.Dir, spec.Env)
	if err != nil {
		return Plan{}, &backends.Failure{
			Class: backends.ClassLaunch, Message: "it is not known whether the engine can stream weights",
			Advice: "check that the model's command begins with a Python, or a program of one", Err: err,
		}
	}
	if problem, fix := has.Problem(); problem != "" {
		return Plan{}, refused(problem, fix+", or write stream_model: false")
	}
	plan, err := look(ctx, spec.ModelPath, env)
	plan.Loader = has.Core
	return plan, err
}

// look asks the bucket.
func look(ctx context.Context, address string, env func(string) (string, bool)) (_ Plan, err error) {
	where, err := s3.ParseLocation(address)
	if err != nil {
		return Plan{}, refused("the address of the weights cannot be used", err.Error())
	}
	settings, err := s3.ReadSettings(ctx, env)
	if err != nil {
		return Plan{}, &backends.Failure{Class: backends.ClassSecret, Permanent: true, Message: "the credentials of the object store cannot be used", Advice: "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE", Err: err}
	}
	bucket, err := s3.New(s3.Options{Location: where, Settings: settings})
	if err != nil {
		return Plan{}, refused("the object store cannot be used", err.Error())
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	list, err := bucket.List(ctx, "")
	if err != nil {
		return Plan{}, unreachable(err)
	}
	files, err := chosen(list)
	if err == nil {
		err = indexed(ctx, bucket, list, files)
	}
	if err == nil {
		err = readable(ctx, bucket, list.Commit, files[0])
	}
	if u, ok := errors.AsType[unfit](err); ok {
		return Plan{}, refused(u.problem, u.fix)
	} else if err != nil {
		return Plan{}, unreachable(err)
	}
	plan := Plan{Address: where.String(), Commit: list.Commit, Files: len(files), Identity: settings.Identity, Env: Environment(settings)}
	for _, f := range files {
		plan.Bytes += f.Size
	}
	return plan, nil
}

// indexed checks the index, if there is one.
func indexed(ctx context.Context, bucket *s3.Bucket, list store.Listing, files []store.File) error {
	for _, f := range list.Files {
		if f.Path != indexFile || f.Size > maxHeader {
			continue
		}
		r, err := bucket.Open(ctx, list.Commit, f, 0, f.Size)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("reading %s: %w", f.Path, err)
		}
		return checkIndex(text, files)
	}
	return nil
}

func refused(problem, fix string) *backends.Failure {
	return &backends.Failure{Class: backends.ClassBadFlag, Permanent: true, Message: problem, Advice: fix}
}

// unreachable explains what the object store answered, or that it did not.
func unreachable(err error) *backends.Failure {
	f := &backends.Failure{
		Class: backends.ClassUnreachable, Message: "the object store cannot be reached, or does not answer as it should",
		Advice: "check AWS_ENDPOINT_URL and the network", Err: err,
	}
	if e, ok := errors.AsType[*s3.Error](err); ok {
		f.Message, f.Advice = "the object store refused: "+e.Problem, e.Advice
		f.Permanent = !errors.Is(err, s3.ErrClock)
		switch {
		case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrFileNotFound):
			f.Class = backends.ClassModelNotFound
		case errors.Is(err, store.ErrUnauthorized), errors.Is(err, s3.ErrDenied):
			f.Class = backends.ClassGated
		}
	}
	return f
}
