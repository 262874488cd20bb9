"""Pages for people: who is where and why (/console), and a product whose onboarding adapts (/console/demo).

index.html ─► console.js ─► overview.js, user.js, playbook.js     asks /v1/segments, /v1/users, /v1/decide, /v1/playbook
demo.html  ─► demo.js ────► pieces.js, and our own /firstmile.js  sends events, asks /v1/decide
"""
