package testtools

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// S3 is a real S3 server (versitygw) over a folder.
type S3 struct {
	*Server
	// Access and Secret are the owner's keys.
	Access, Secret string
	// Folder holds a folder for each bucket. Files put there by hand are objects without an ETag.
	Folder string

	program, home string
}

// Program is the server's, which is also its administration tool.
func (s S3) Program() string { return s.program }

// S3Server builds and starts a real S3 server; flags go to it, before its backend. The tool that PILOTLIGHT_REQUIRE may name is "modules".
func S3Server(t testing.TB, flags ...string) S3 {
	t.Helper()
	program := goProgram(t, filepath.Join(moduleRoot(t), "internal", "testtools", "testdata", "versitygw"), "", "github.com/versity/versitygw/cmd/versitygw")
	s := S3{Access: "AKTEST", Secret: "the-owner's-secret", Folder: t.TempDir(), program: program, home: t.TempDir()}
	port := freePort(t)
	argv := append([]string{program, "--access", s.Access, "--secret", s.Secret, "--port", "127.0.0.1:" + strconv.Itoa(port), "--health", "/health"}, flags...)
	s.Server = serve(t, port, append(argv, "posix", "--sidecar", t.TempDir(), s.Folder))
	return s
}

// Env is the whole environment of a client that is the owner: no file and no role of whoever runs the test.
func (s S3) Env() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL": s.URL, "AWS_ACCESS_KEY_ID": s.Access, "AWS_SECRET_ACCESS_KEY": s.Secret, "AWS_REGION": "us-east-1",
		"AWS_EC2_METADATA_DISABLED": "true", "HOME": s.home, "PATH": os.Getenv("PATH"),
	}
}
