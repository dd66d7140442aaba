//! Certificates for STARTTLS on a listener. Does not fetch or renew them.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum ServerTlsError {
    /// The PEM text holds no usable certificate or key.
    #[error("certificate or key is not valid PEM")]
    Pem(#[from] pem::Error),
    /// A self-signed certificate could not be made, for example for an invalid name.
    #[error("could not make a self-signed certificate")]
    SelfSigned(#[from] rcgen::Error),
    /// Certificate and key do not fit together or are of an unsupported kind.
    #[error("certificate and key cannot be used for TLS")]
    Unusable(#[from] rustls::Error),
}

/// A server configuration with a fresh self-signed certificate: enough for opportunistic TLS,
/// where nobody checks it.
///
/// # Errors
/// When `host_name` cannot stand in a certificate.
pub fn server_tls_self_signed(host_name: &str) -> Result<Arc<ServerConfig>, ServerTlsError> {
    let made = rcgen::generate_simple_self_signed(vec![host_name.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    server_config(vec![made.cert.der().clone()], key.into())
}

/// A server configuration from a PEM certificate chain and a PEM private key.
///
/// # Errors
/// When either is not PEM, or they do not fit together.
pub fn server_tls_from_pem(
    chain: &[u8],
    private_key: &[u8],
) -> Result<Arc<ServerConfig>, ServerTlsError> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
    server_config(chain, PrivateKeyDer::from_pem_slice(private_key)?)
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, ServerTlsError> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}
