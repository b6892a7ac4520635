package servertest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is the certificate authority of a test.
type CA struct {
	// PEM is the certificate of the authority.
	PEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a certificate authority.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	template := template(tb, "test CA", 24*time.Hour)
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	key := newKey(tb)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &CA{PEM: pemBlock("CERTIFICATE", der), cert: cert, key: key}
}

// Issue makes a certificate for servers on 127.0.0.1, localhost and further names, and for
// clients called name. It is valid for the time valid. A time that is not positive makes
// an expired certificate. Issue returns the certificate and its key as one PEM, so that a
// file with both can be replaced atomically.
func (ca *CA) Issue(tb testing.TB, name string, valid time.Duration, names ...string) []byte {
	tb.Helper()
	template := template(tb, name, valid)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.DNSNames = append([]string{"localhost"}, names...)
	key := newKey(tb)
	cert, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Join([][]byte{pemBlock("CERTIFICATE", cert), pemBlock("PRIVATE KEY", der)}, nil)
}

// ClientConfig returns the configuration of a client for servers with certificates of ca.
// The client has a certificate for name.
func (ca *CA) ClientConfig(tb testing.TB, name string) *tls.Config {
	tb.Helper()
	both := ca.Issue(tb, name, 24*time.Hour)
	cert, err := tls.X509KeyPair(both, both)
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

// Pool returns a pool that has only ca.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// template returns a certificate without its uses.
func template(tb testing.TB, name string, valid time.Duration) *x509.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		tb.Fatal(err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.Add(valid),
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// WriteFile replaces a file atomically: no reader gets a part of it.
func WriteFile(tb testing.TB, path string, data []byte) {
	tb.Helper()
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		tb.Fatal(err)
	}
	_, err = tmp.Write(data)
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// ServedSerial returns the serial number of the certificate that the server at addr presents
// now.
func ServedSerial(tb testing.TB, addr string, config *tls.Config) string {
	tb.Helper()
	config = config.Clone()
	// An expired certificate has a serial number too.
	config.InsecureSkipVerify = true
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}
