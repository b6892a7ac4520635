package open

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// The parts that URLs of several registries have in common: hosts, certificates and
// secrets.

// hostPort checks the address of a host, and adds the default port if it has none. It
// reports whether the address is valid.
func hostPort(s, defaultPort string) (string, bool) {
	u, err := url.Parse("//" + s)
	if err != nil || u.Host != s {
		return "", false
	}
	host, port := u.Hostname(), u.Port()
	if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, ":, ")) {
		return "", false // for example several hosts
	}
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

// setting is a value, and the parameter or variable that set it.
type setting struct{ value, from string }

// lookup returns the value of a parameter, or of the variable env if the parameter is not
// set.
func lookup(params url.Values, name, env string) setting {
	if s := params.Get(name); s != "" || env == "" {
		return setting{s, fmt.Sprintf("parameter %q", name)}
	}
	return setting{os.Getenv(env), env}
}

// tlsConfig returns the configuration of a client. The parameters cacert, cert and key set
// it, or else the variables cacertEnv, certEnv and keyEnv.
func tlsConfig(params url.Values, cacertEnv, certEnv, keyEnv string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := lookup(params, "cacert", cacertEnv); file.value != "" {
		pem, err := os.ReadFile(file.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.from, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s has no certificate in PEM", file.from, file.value)
		}
	}
	if params.Has("cert") != params.Has("key") {
		return nil, invalid("it has only one of the parameters %q and %q", "cert", "key")
	}
	cert, key := lookup(params, "cert", certEnv), lookup(params, "key", keyEnv)
	if (cert.value == "") != (key.value == "") {
		return nil, fmt.Errorf("only one of %s and %s is set", certEnv, keyEnv)
	}
	if cert.value != "" {
		// Once now, so that Store returns the error, and again for every connection:
		// certificates are replaced while programs run.
		load := func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(cert.value, key.value)
			if err != nil {
				return nil, fmt.Errorf("%s and %s: %w", cert.from, key.from, err)
			}
			return &c, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}

// secret returns the content of the file or the variable that the parameter name-file or
// name-env names, or "" if neither is set. Errors do not contain the value of the
// parameter: it may be the secret itself, by mistake.
func secret(params url.Values, name string) (string, error) {
	file, env := params.Get(name+"-file"), params.Get(name+"-env")
	switch {
	case file != "" && env != "":
		return "", invalid("it has both of the parameters %q and %q", name+"-file", name+"-env")
	case env != "":
		s := os.Getenv(env)
		if s == "" {
			return "", fmt.Errorf("parameter %q: the environment variable is not set or empty", name+"-env")
		}
		return s, nil
	case file != "":
		s, err := readSecret(file)
		if err != nil {
			return "", fmt.Errorf("parameter %q: %w", name+"-file", err)
		}
		return s, nil
	}
	return "", nil
}

// readSecret returns the content of a file without a line end at the end. Errors do not
// contain the path.
func readSecret(file string) (string, error) {
	const most = 64 << 10
	f, err := os.Open(file)
	if err != nil {
		return "", withoutPath(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return "", withoutPath(err)
	case len(b) > most:
		return "", fmt.Errorf("the file has more than %d bytes", most)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return "", errors.New("the file is empty")
	}
	return string(b), nil
}

// withoutPath returns the cause of an error of a file.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
