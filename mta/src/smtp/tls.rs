//! TLS for outgoing connections: the modes, and the client configuration of opportunistic TLS.
//! Does not decide which mode a domain gets; that is the TLS policy's business (RFC 8461, RFC 7672).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

/// Whether and how a connection is encrypted with STARTTLS (RFC 3207).
///
/// The configurations are shared between connections: they carry the TLS session cache, so the
/// second connection to a host resumes instead of doing a full handshake.
#[derive(Debug, Clone)]
pub enum TlsMode {
    /// Never: STARTTLS is not used even when offered.
    Clear,
    /// When offered. Use [`opportunistic_client_config`]: no certificate is refused.
    Opportunistic(Arc<ClientConfig>),
    /// Always, verified as the given configuration says; clear text is never used.
    Required(Arc<ClientConfig>),
}

/// A client configuration that takes any certificate, for opportunistic TLS.
///
/// # Errors
/// When the cryptographic provider supports neither TLS 1.2 nor 1.3.
pub fn opportunistic_client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AcceptAnyCertificate {
        provider: provider.clone(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A client configuration that requires a certificate of the public PKI valid for the host name,
/// as MTA-STS in mode enforce does (RFC 8461 section 4.2).
///
/// # Errors
/// When the cryptographic provider supports neither TLS 1.2 nor 1.3.
pub fn webpki_client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Accepts every certificate and every handshake signature.
///
/// Without an authenticated name a valid signature proves nothing: whoever sits in the middle
/// signs with a certificate of their own. Refusing here would only send the mail in clear.
#[derive(Debug)]
struct AcceptAnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
