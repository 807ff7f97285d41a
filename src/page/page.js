(() => {
  'use strict';
  const $ = (id) => document.getElementById(id);
  const data = $('l402').dataset;
  const form = $('form');
  const ends = Date.now() + data.left * 1000;
  let opened = false;

  const say = (text) => { $('status').textContent = text; };
  const open = (token, preimage) => {
    if (opened) return;
    opened = true;
    form.elements.token.value = token;
    form.elements.preimage.value = preimage;
    say(data.paid);
    form.submit();
  };

  if (!navigator.cookieEnabled || !window.isSecureContext) {
    $('not-kept').hidden = false;
    $('ways').hidden = true;
    return;
  }

  // The time that is left.
  const tick = () => {
    const left = Math.max(0, Math.ceil((ends - Date.now()) / 1000));
    $('left').textContent = Math.floor(left / 60) + ':' + String(left % 60).padStart(2, '0');
    if (left > 0) return;
    clearInterval(ticking);
    if (opened) return;
    $('ways').hidden = true;
    $('renew').hidden = false;
    say(data.expired);
  };
  const ticking = setInterval(tick, 1000);
  tick();

  // The invoice, into the clipboard or at least selected.
  $('copy').hidden = false;
  $('copy').onclick = async () => {
    try {
      await navigator.clipboard.writeText(data.invoice);
      const button = $('copy');
      const text = button.textContent;
      button.textContent = data.copied;
      setTimeout(() => { button.textContent = text; }, 2000);
    } catch {
      $('invoice').open = true;
      getSelection().selectAllChildren($('bolt11'));
    }
  };

  // A wallet in the browser, now or when it is ready.
  const offer = () => { $('wallet').hidden = typeof window.webln?.sendPayment !== 'function'; };
  addEventListener('webln:ready', offer);
  offer();
  $('wallet').onclick = async () => {
    $('wallet').disabled = true;
    try {
      await window.webln.enable();
      const payment = await window.webln.sendPayment(data.invoice);
      open(data.token, payment.preimage);
    } catch {
      say(data.weblnFailed);
      $('wallet').disabled = false;
    }
  };

  // The server sees the payment. It may have been made for what this tab showed
  // before it was loaded again, as a phone does behind a wallet, and as it is
  // after a checkout.
  const key = 'l402:' + data.service + ':' + location.pathname + location.search;
  let pending = [];
  try {
    pending = JSON.parse(sessionStorage.getItem(key)) || [];
    const fresh = pending.filter((one) => one.until > Date.now());
    const last = (checkout) => fresh.filter((one) => Boolean(one.checkout) === checkout).slice(-2);
    pending = [...last(true), ...last(false)];
  } catch { /* nothing is kept */ }
  const keep = () => {
    try { sessionStorage.setItem(key, JSON.stringify(pending)); } catch { /* nothing is kept */ }
  };
  const before = pending.length;
  let waiting = 0;
  const ask = async () => {
    clearTimeout(waiting);
    // What only a slow method may still pay is asked for now and then.
    let wait = pending.every((one) => one.checkout && one.checkout < Date.now()) ? 30 : 3;
    for (const one of pending) {
      try {
        const answer = await fetch(data.route, { headers: { Authorization: 'L402 ' + one.token }, cache: 'no-store' });
        if (answer.ok && (await answer.json()).paid === true) {
          pending = pending.filter((other) => other !== one);
          keep();
          open(one.token, '');
          return;
        }
        wait = Math.max(wait, Number(answer.headers.get('Retry-After')) || 0);
      } catch { /* asked again */ }
    }
    pending = pending.filter((one) => one.until > Date.now());
    clearTimeout(waiting);
    if (pending.length && !opened) waiting = setTimeout(ask, wait * 1000);
  };
  addEventListener('visibilitychange', () => { if (!document.hidden && pending.length) ask(); });
  if ('sees' in data) {
    pending.push({ token: data.token, until: ends + 60000 });
    keep();
  }
  if (pending.length) waiting = setTimeout(ask, before ? 0 : 3000);

  // A checkout of this origin says what its payment opens, before it leads on. A
  // payment may arrive days after it was made.
  for (const button of document.querySelectorAll('button[data-checkout]')) {
    const link = new URL(button.dataset.checkout, location.href);
    if (link.origin !== location.origin) continue;
    button.hidden = false;
    button.onclick = async () => {
      button.disabled = true;
      try {
        const answer = await fetch(link.pathname, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify(Object.fromEntries(link.searchParams)),
        });
        const { payment_request: place, expires_at: until, token } = await answer.json();
        if (!token || !place.checkout_url) throw new Error('no page');
        const ends = Date.parse(until);
        pending.push({ token, checkout: ends, until: ends + 7 * 86_400_000 });
        keep();
        location.href = place.checkout_url;
      } catch {
        say(data.checkoutFailed);
      }
      button.disabled = false;
    };
  }
})();
