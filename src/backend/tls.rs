//! By which certificates a backend is known.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::read_file;
use crate::error::{Error, ErrorKind};

/// Who may be at the other end of a connection.
#[derive(Debug)]
pub(crate) enum Trust {
    /// Whoever has a certificate for the name, of an authority that browsers trust.
    Public,
    /// Whoever has one of these certificates, or one for the name that they signed.
    Pinned(Vec<CertificateDer<'static>>),
}

impl Trust {
    /// Of the node at this address, with or without a certificate of its own.
    pub(super) fn of(base_url: &str, certificate: Option<&Path>) -> Result<Self, Error> {
        let Some(certificate) = certificate else { return Ok(Self::Public) };
        // Nothing would look at it, and the credentials would be there to be read.
        if base_url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://")) {
            let what = "a certificate is given, and the address of the backend is `http://`: use `https://`";
            return Err(Error::new(ErrorKind::Backend, what));
        }
        Self::pinned(certificate)
    }

    /// The certificates of a PEM file, the only ones that are trusted.
    pub(super) fn pinned(path: &Path) -> Result<Self, Error> {
        let pem = read_file(path, "the certificate")?;
        let error = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Backend, format!("{} is no certificate in PEM form", path.display()))
                .with_source(cause)
        };
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|cause| error(NotPem::from(&cause).into()))?;
            ParsedCertificate::try_from(&certificate).map_err(|cause| error(cause.into()))?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(error(NotPem::Nothing.into()));
        }
        Ok(Self::Pinned(certificates))
    }

    pub(super) fn into_config(self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has the ciphers of TLS 1.2 and 1.3");
        match self {
            Self::Public => {
                let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                config.with_root_certificates(roots).with_no_client_auth()
            }
            Self::Pinned(certificates) => {
                let verifier = Arc::new(Pinned::new(certificates, provider));
                config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            }
        }
    }
}

/// Why a file is no PEM. The library's own words quote the file, which may be
/// a key that was given by mistake.
#[derive(Debug, thiserror::Error)]
enum NotPem {
    #[error("it holds no certificate")]
    Nothing,
    #[error("its PEM is broken")]
    Broken,
}

impl From<&pem::Error> for NotPem {
    fn from(error: &pem::Error) -> Self {
        if matches!(error, pem::Error::NoItemsFound) { Self::Nothing } else { Self::Broken }
    }
}

/// Trusts the pinned certificates themselves, which most nodes sign on their
/// own and path validation refuses, and what they signed as authorities.
#[derive(Debug)]
struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    /// `None` where none of them can be an authority.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn new(certificates: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok();
        Self { certificates, authorities, provider }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The very certificate, whatever its name and dates: only its owner can
        // sign the handshake, which the methods below check.
        if self.certificates.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let Some(authorities) = &self.authorities else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
