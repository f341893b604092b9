// An OpenID Connect provider (npm's `oidc-provider`) in which whoever comes is signed in as alice at once:
// `provider.mjs PORT KEY CERTIFICATE REDIRECT`. With LIFE in the environment, tokens live so many seconds.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import https from 'node:https';

const require = createRequire(process.cwd() + '/');
const { default: Provider } = await import(require.resolve('oidc-provider'));
const [port, key, cert, redirect] = process.argv.slice(2);
const life = Number(process.env.LIFE ?? 3600);

const provider = new Provider(`https://localhost:${port}`, {
  clients: [{
    client_id: 'shop', client_secret: 'a secret: with/odd %characters', redirect_uris: [redirect],
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
  }],
  features: { devInteractions: { enabled: false } },
  pkce: { required: () => false },
  scopes: ['openid', 'email', 'offline_access'],
  claims: { openid: ['sub'], email: ['email'] },
  ttl: { AccessToken: life, IdToken: 3600, Grant: 3600, Session: 3600, Interaction: 3600, RefreshToken: 3600 },
  issueRefreshToken: () => true,
  findAccount: (_, id) => ({
    accountId: id,
    // Long enough for a session of two cookies.
    claims: () => ({ sub: id, email: `${id}@test`, note: 'n'.repeat(3000) }),
  }),
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope(ctx.oidc.params.scope);
    await grant.save();
    return grant;
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
});
// What the provider gives out of `note`, beside what its scopes say.
provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/me' && ctx.body?.sub) ctx.body.note = 'n'.repeat(3000);
});

const answer = provider.callback();
https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, async (request, response) => {
  if (!request.url.startsWith('/interaction/')) return answer(request, response);
  try {
    await provider.interactionFinished(request, response, { login: { accountId: 'alice' } });
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}).listen(Number(port), '127.0.0.1');
