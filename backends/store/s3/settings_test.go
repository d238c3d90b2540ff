package s3

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseLocation(t *testing.T) {
	for address, want := range map[string]string{
		"s3://bucket": "s3://bucket", "s3://bucket/": "s3://bucket", "s3://bucket/a/b/": "s3://bucket/a/b", "s3://my.bucket/Llama 3 é": "s3://my.bucket/Llama 3 é",
	} {
		got, err := ParseLocation(address)
		if err != nil || got.String() != want {
			t.Errorf("%q: got %v, %v, want %s", address, got, err, want)
		}
	}
	for _, address := range []string{"", "s3://", "s3:///x", "http://bucket/x", "s3://key:secret@bucket/x", "s3://bucket/x?y", "s3://UPPER/x", "s3://bucket/a/../b", "s3://bucket/a//b"} {
		if got, err := ParseLocation(address); err == nil {
			t.Errorf("%q: got %v, want an error", address, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the secret is in %v", err)
		}
	}
}

func TestReadSettings(t *testing.T) {
	home := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("aws/credentials", "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = s1\n[work]\naws_access_key_id = AKWORK\naws_secret_access_key = s2\naws_session_token = t2\n[half]\naws_access_key_id = AKHALF\n")
	write("aws/config", "[default]\nregion = eu-north-1\n[profile work]\nregion = eu-west-3\nendpoint_url = http://store.example:9000\ns3 =\n  addressing_style = path\n[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n")
	write("bad/config", "[never closed")
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write([]byte(`{"AccessKeyId": "AKROLE", "SecretAccessKey": "s3", "Token": "t3", "Expiration": "2099-01-01T00:00:00Z"}`))
		if err != nil {
			t.Error(err)
		}
	}))
	defer role.Close()
	files := []string{"AWS_SHARED_CREDENTIALS_FILE", filepath.Join(home, "aws/credentials"), "AWS_CONFIG_FILE", filepath.Join(home, "aws/config")}
	none := map[string]string{"HOME": home, "AWS_EC2_METADATA_DISABLED": "true"}

	type result struct{ endpoint, region, key, token, identity string }
	for _, tt := range []struct {
		name  string
		env   map[string]string
		want  result
		path  bool
		error string
	}{
		{name: "nothing", env: none, want: result{identity: "none found"}},
		{name: "environment", env: with(none, "AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", "s", "AWS_SESSION_TOKEN", "t", "AWS_DEFAULT_REGION", "us-west-1"), want: result{region: "us-west-1", key: "AK", token: "t", identity: "AWS_ACCESS_KEY_ID of the environment"}},
		{name: "endpoints", env: with(none, "AWS_ENDPOINT_URL", "http://a:1", "AWS_ENDPOINT_URL_S3", "https://b:2", "AWS_REGION", "r1", "AWS_DEFAULT_REGION", "r2"), want: result{endpoint: "https://b:2", region: "r1", identity: "none found"}, path: true},
		{name: "virtual", env: with(none, "AWS_ENDPOINT_URL", "http://a:1", "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", "1"), want: result{endpoint: "http://a:1", identity: "none found"}},
		{name: "default profile", env: with(none, files...), want: result{region: "eu-north-1", key: "AKDEFAULT", identity: "profile default"}},
		{name: "profile", env: with(none, append(files, "AWS_PROFILE", "work")...), want: result{endpoint: "http://store.example:9000", region: "eu-west-3", key: "AKWORK", token: "t2", identity: "profile work"}, path: true},
		{name: "environment before profile", env: with(none, append(files, "AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", "s")...), want: result{region: "eu-north-1", key: "AK", identity: "AWS_ACCESS_KEY_ID of the environment"}},
		{name: "container", env: with(none, "AWS_CONTAINER_CREDENTIALS_FULL_URI", role.URL), want: result{key: "AKROLE", token: "t3", identity: "the container's role"}},
		{name: "half a key", env: with(none, "AWS_ACCESS_KEY_ID", "AK"), error: "AWS_SECRET_ACCESS_KEY is not"},
		{name: "other half", env: with(none, "AWS_SECRET_ACCESS_KEY", "the-secret"), error: "AWS_ACCESS_KEY_ID is not"},
		{name: "half a profile", env: with(none, append(files, "AWS_PROFILE", "half")...), error: "one half of a pair of keys"},
		{name: "no such profile", env: with(none, append(files, "AWS_PROFILE", "nobody")...), error: `"nobody" is neither in`},
		{name: "role of a profile", env: with(none, append(files, "AWS_PROFILE", "role")...), error: "role_arn is not followed"},
		{name: "unreadable", env: with(none, "AWS_CONFIG_FILE", filepath.Join(home, "bad/config")), error: "bad/config"},
		{name: "endpoint without scheme", env: with(none, "AWS_ENDPOINT_URL", "localhost:9000"), error: "want http://HOST:PORT"},
		{name: "endpoint with a path", env: with(none, "AWS_ENDPOINT_URL", "http://a/b"), error: "without a path"},
		{name: "endpoint with a password", env: with(none, "AWS_ENDPOINT_URL", "http://u:the-secret@a"), error: "credentials"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadSettings(t.Context(), lookup(tt.env))
			if tt.error != "" {
				if err == nil || !strings.Contains(err.Error(), tt.error) || strings.Contains(err.Error(), "the-secret") {
					t.Fatalf("got %v, want it to say %q", err, tt.error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			value, err := got.creds.GetWithContext(nil)
			if err != nil {
				t.Fatal(err)
			}
			now := result{region: got.Region, key: value.AccessKeyID, token: value.SessionToken, identity: got.Identity}
			if got.Endpoint != nil {
				now.endpoint = got.Endpoint.String()
			}
			if now != tt.want || got.PathStyle != tt.path || got.Anonymous != (tt.want.key == "") {
				t.Errorf("got %+v, path style %v, anonymous %v, want %+v, %v", now, got.PathStyle, got.Anonymous, tt.want, tt.path)
			}
		})
	}
}

func TestCABundle(t *testing.T) {
	settings, err := ReadSettings(t.Context(), lookup(map[string]string{"AWS_CA_BUNDLE": "/nowhere.pem", "AWS_EC2_METADATA_DISABLED": "true"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Location: Location{Bucket: "models"}, Settings: settings}); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("got %v, want it to name AWS_CA_BUNDLE", err)
	}
}
