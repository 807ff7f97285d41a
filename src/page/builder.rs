//! Which page a gate shows.

use std::sync::Arc;

use super::Page;
use crate::error::{Error, ErrorKind};
use crate::gate_builder::GateBuilder;

impl GateBuilder {
    /// Shows people this page in place of the
    /// [issuer's](crate::IssuerBuilder::with_page), whose route it shares.
    #[cfg_attr(docsrs, doc(cfg(feature = "page")))]
    pub fn with_page(mut self, page: Page) -> Self {
        self.page = Some(Arc::new(page));
        self
    }

    /// The gate's own page, or the issuer's.
    pub(crate) fn page(&self) -> Result<Option<Arc<Page>>, Error> {
        match (&self.page, &self.issuer.0.page) {
            (Some(_), None) => Err(Error::new(
                ErrorKind::Page,
                format!("gate `{}` has a page: give the issuer its route with `with_page`", self.service),
            )),
            (own, issuers) => Ok(own.clone().or_else(|| issuers.as_ref().map(|(_, page)| page.clone()))),
        }
    }
}
