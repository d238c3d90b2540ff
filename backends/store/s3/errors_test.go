package s3

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"pilotlight/backends/store"
	"pilotlight/internal/testtools"
)

// with is env with pairs set over it.
func with(env map[string]string, pairs ...string) map[string]string {
	env = maps.Clone(env)
	for i := 0; i < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return env
}

// addUser makes AKOTHER known to the server, who may do nothing yet.
func addUser(t *testing.T, s testtools.S3) {
	t.Helper()
	admin := exec.Command(s.Program(), "admin", "--access", s.Access, "--secret", s.Secret, "--endpoint-url", s.URL,
		"create-user", "--access", "AKOTHER", "--secret", "other-secret", "--role", "user")
	if out, err := admin.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestRefusalsOfRealServerHelp(t *testing.T) {
	s, b := server(t, "--iam-dir", t.TempDir())
	put(t, b, "m/config.json", []byte("{}"), minio.PutObjectOptions{})
	addUser(t, s)
	env := s.Env()
	for _, tt := range []struct {
		name, address string
		env           map[string]string
		want          error
		says          []string
	}{
		{"unknown key", "s3://models/m", with(env, "AWS_ACCESS_KEY_ID", "AKNOBODY"), store.ErrUnauthorized, []string{"does not know the access key", "AWS_ACCESS_KEY_ID of the environment"}},
		{"wrong secret", "s3://models/m", with(env, "AWS_SECRET_ACCESS_KEY", "not-it"), store.ErrUnauthorized, []string{"AWS_SECRET_ACCESS_KEY"}},
		{"no such bucket", "s3://nowhere/m", env, store.ErrNotFound, []string{`"nowhere"`}},
		{"nothing there", "s3://models/other", env, store.ErrNotFound, []string{"nothing lies below s3://models/other"}},
		{"not allowed", "s3://models/m", with(env, "AWS_ACCESS_KEY_ID", "AKOTHER", "AWS_SECRET_ACCESS_KEY", "other-secret"), ErrDenied, []string{"s3:ListBucket"}},
		{"no credentials", "s3://models/m", map[string]string{"AWS_ENDPOINT_URL": s.URL}, store.ErrUnauthorized, []string{"not public", "AWS_PROFILE"}},
		{"wrong region", "s3://models/m", with(env, "AWS_REGION", "eu-west-1"), ErrRegion, []string{"AWS_REGION"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := fetch(t.Context(), newStore(t, t.TempDir()), bucket(t, tt.address, tt.env))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			for _, says := range tt.says {
				if !strings.Contains(fmt.Sprint(err), says) {
					t.Errorf("got %v, want it to say %q", err, says)
				}
			}
			for _, secret := range []string{env["AWS_SECRET_ACCESS_KEY"], "not-it", "other-secret"} {
				if strings.Contains(fmt.Sprint(err), secret) {
					t.Errorf("the secret is in %v", err)
				}
			}
		})
	}
}

func TestPublicBucketNeedsNoCredentials(t *testing.T) {
	s, b := server(t)
	put(t, b, "m/config.json", []byte("{}"), minio.PutObjectOptions{})
	policy := `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket", "s3:GetObject"],
		"Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"]}]}`
	if err := b.client.SetBucketPolicy(t.Context(), "models", policy); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]map[string]string{
		"none found": {"AWS_ENDPOINT_URL": s.URL},
		"asked for":  with(s.Env(), "RUNAI_STREAMER_S3_UNSIGNED", "1", "AWS_SECRET_ACCESS_KEY", "not-it"),
	} {
		if _, err := fetch(t.Context(), newStore(t, t.TempDir()), bucket(t, "s3://models/m", env)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRefusalsThatNeedOtherServers are those that the real server gives never, or only to another clock.
func TestRefusalsThatNeedOtherServers(t *testing.T) {
	for _, tt := range []struct {
		status       int
		code, region string
		want         error
		says         string
	}{
		{403, "RequestTimeTooSkewed", "", ErrClock, "NTP"},
		{400, "ExpiredToken", "", store.ErrUnauthorized, "expired"},
		{403, "InvalidToken", "", store.ErrUnauthorized, "AWS_SESSION_TOKEN"},
		{301, "PermanentRedirect", "eu-central-1", ErrRegion, "AWS_REGION=eu-central-1"},
		{400, "AuthorizationHeaderMalformed", "ap-south-1", ErrRegion, "AWS_REGION=ap-south-1"},
		{503, "SlowDown", "", nil, "503"},
	} {
		t.Run(tt.code, func(t *testing.T) {
			asked := 0
			fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				if got := r.Header.Get("X-Amz-Security-Token"); got != "the-token" {
					t.Errorf("session token: got %q", got)
				}
				w.Header().Set("Content-Type", "application/xml")
				if tt.region != "" {
					w.Header().Set("X-Amz-Bucket-Region", tt.region)
				}
				w.WriteHeader(tt.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>said so</Message></Error>", tt.code)
			}))
			defer fake.Close()
			b := bucket(t, "s3://models/m", map[string]string{"AWS_ENDPOINT_URL_S3": fake.URL, "AWS_ENDPOINT_URL": "http://not.this.invalid", "AWS_ACCESS_KEY_ID": "AK",
				"AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "the-token", "AWS_REGION": "us-west-2"})
			_, err := b.List(t.Context(), "")
			if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.says) || strings.Contains(fmt.Sprint(err), "the-token") {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.says)
			}
			if status, ok := errors.AsType[*store.StatusError](err); tt.want == nil && (!ok || status.Status != tt.status) {
				t.Errorf("got %v, want a status that is worth another try", err)
			}
			if asked == 0 {
				t.Error("nobody was asked")
			}
		})
	}
}

func TestCancelledListing(t *testing.T) {
	s, _ := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bucket(t, "s3://models/m", s.Env()).List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
